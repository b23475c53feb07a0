# The key that signs license tokens. It never leaves KMS; the service gets signatures and public keys.

resource "google_kms_key_ring" "this" {
  project  = var.project
  name     = "license"
  location = var.region
}

resource "google_kms_crypto_key" "signing" {
  name     = "license-signing"
  key_ring = google_kms_key_ring.this.id
  purpose  = "ASYMMETRIC_SIGN"
  # No rotation_period: KMS has none for asymmetric keys. `coditect-license keys rotate` makes versions (k8s/base/cronjobs.yaml).
  destroy_scheduled_duration = "2592000s"

  version_template {
    algorithm        = "RSA_SIGN_PKCS1_4096_SHA256"
    protection_level = var.protection_level
  }

  lifecycle {
    # Without it no license token of the past verifies once its public key is forgotten, and none of the future is signed.
    prevent_destroy = true
  }
}

# The workload signs and reads public keys; nothing else, and nobody else.
resource "google_kms_crypto_key_iam_binding" "signers" {
  crypto_key_id = google_kms_crypto_key.signing.id
  role          = "roles/cloudkms.signerVerifier"
  members       = ["serviceAccount:${var.signer_email}"]
}

# To list versions: signerVerifier does not include it.
resource "google_kms_crypto_key_iam_binding" "viewers" {
  crypto_key_id = google_kms_crypto_key.signing.id
  role          = "roles/cloudkms.viewer"
  members       = ["serviceAccount:${var.signer_email}", "serviceAccount:${var.rotator_email}"]
}

# The rotation makes versions and disables them; it cannot sign, and destroys nothing.
resource "google_project_iam_custom_role" "rotator" {
  project     = var.project
  role_id     = "licenseKeyRotator"
  title       = "License key rotator"
  description = "Makes and disables versions of the signing key."
  permissions = [
    "cloudkms.cryptoKeyVersions.create",
    "cloudkms.cryptoKeyVersions.get",
    "cloudkms.cryptoKeyVersions.list",
    "cloudkms.cryptoKeyVersions.update",
    "cloudkms.cryptoKeyVersions.viewPublicKey",
  ]
}

resource "google_kms_crypto_key_iam_binding" "rotators" {
  crypto_key_id = google_kms_crypto_key.signing.id
  role          = google_project_iam_custom_role.rotator.id
  members       = ["serviceAccount:${var.rotator_email}"]
}

# Every signature leaves a line: who asked KMS, when.
resource "google_project_iam_audit_config" "kms" {
  project = var.project
  service = "cloudkms.googleapis.com"

  audit_log_config {
    log_type = "ADMIN_READ"
  }

  audit_log_config {
    log_type = "DATA_READ"
  }

  audit_log_config {
    log_type = "DATA_WRITE"
  }
}
