# The name that clients know, the address behind it, and what stands at the door.

resource "google_dns_managed_zone" "this" {
  count = var.create_zone ? 1 : 0

  project     = var.project
  name        = var.zone_name
  dns_name    = "${var.zone_domain}."
  description = "CODITECT"

  dnssec_config {
    state         = "on"
    non_existence = "nsec3"
  }
}

# The Ingress names it: kubernetes.io/ingress.global-static-ip-name.
resource "google_compute_global_address" "api" {
  project = var.project
  name    = "license-api"
}

resource "google_dns_record_set" "api" {
  project      = var.project
  managed_zone = var.create_zone ? google_dns_managed_zone.this[0].name : var.zone_name
  name         = "${var.host}."
  type         = "A"
  ttl          = 300
  rrdatas      = [google_compute_global_address.api.address]
}

# Only these may issue certificates for the name.
resource "google_dns_record_set" "caa" {
  project      = var.project
  managed_zone = var.create_zone ? google_dns_managed_zone.this[0].name : var.zone_name
  name         = "${var.host}."
  type         = "CAA"
  ttl          = 3600
  rrdatas      = ["0 issue \"letsencrypt.org\""]
}

resource "google_compute_ssl_policy" "edge" {
  project         = var.project
  name            = "license-edge"
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

# Far above what an honest address does (an office behind one address included): floods only. The service has limits of its own.
resource "google_compute_security_policy" "edge" {
  project     = var.project
  name        = "license-edge"
  description = "Floods and known attacks"

  rule {
    action      = "deny(403)"
    priority    = 900
    description = "Known attacks on Java libraries"

    match {
      expr {
        expression = "evaluatePreconfiguredWaf('cve-canary')"
      }
    }
  }

  rule {
    action      = "throttle"
    priority    = 1000
    description = "6,000 requests a minute from one address"

    match {
      versioned_expr = "SRC_IPS_V1"

      config {
        src_ip_ranges = ["*"]
      }
    }

    rate_limit_options {
      conform_action = "allow"
      exceed_action  = "deny(429)"
      enforce_on_key = "IP"

      rate_limit_threshold {
        count        = 6000
        interval_sec = 60
      }
    }
  }

  rule {
    action      = "allow"
    priority    = 2147483647
    description = "Everybody else"

    match {
      versioned_expr = "SRC_IPS_V1"

      config {
        src_ip_ranges = ["*"]
      }
    }
  }
}

# cert-manager proves the name through Cloud DNS as this account.
resource "google_service_account" "cert_manager" {
  project      = var.project
  account_id   = "cert-manager"
  display_name = "cert-manager: answers the challenge of Let's Encrypt"
}

resource "google_project_iam_member" "cert_manager" {
  project = var.project
  role    = "roles/dns.admin"
  member  = "serviceAccount:${google_service_account.cert_manager.email}"
}

resource "google_service_account_iam_member" "cert_manager" {
  service_account_id = google_service_account.cert_manager.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[cert-manager/cert-manager]"
}
