# Who people are: Google and GitHub sign them in; a blocking function puts tenant_id and roles into each token.

resource "google_identity_platform_config" "this" {
  project                    = var.project
  autodelete_anonymous_users = true
  authorized_domains         = var.authorized_domains

  multi_tenant {
    allow_tenants = true
  }

  sign_in {
    allow_duplicate_emails = false

    email {
      enabled           = false
      password_required = false
    }
  }

  blocking_functions {
    triggers {
      event_type   = "beforeSignIn"
      function_uri = google_cloudfunctions_function.before_sign_in.https_trigger_url
    }

    forward_inbound_credentials {
      access_token  = false
      id_token      = false
      refresh_token = false
    }
  }

  monitoring {
    request_logging {
      enabled = true
    }
  }
}

# For us: platform_admin signs in without a tenant.
resource "google_identity_platform_default_supported_idp_config" "google" {
  project       = var.project
  enabled       = true
  idp_id        = "google.com"
  client_id     = var.google_client_id
  client_secret = var.google_client_secret

  depends_on = [google_identity_platform_config.this]
}

# A tenant of Identity Platform for each customer; its id is the `identity_tenant` of the customer's tenant in the service.
resource "google_identity_platform_tenant" "customers" {
  for_each = var.tenants

  project               = var.project
  display_name          = each.key
  allow_password_signup = false

  depends_on = [google_identity_platform_config.this]
}

resource "google_identity_platform_tenant_default_supported_idp_config" "google" {
  for_each = { for name, tenant in var.tenants : name => tenant if contains(tenant.providers, "google.com") }

  project       = var.project
  tenant        = google_identity_platform_tenant.customers[each.key].name
  enabled       = true
  idp_id        = "google.com"
  client_id     = var.google_client_id
  client_secret = var.google_client_secret
}

resource "google_identity_platform_tenant_default_supported_idp_config" "github" {
  for_each = { for name, tenant in var.tenants : name => tenant if contains(tenant.providers, "github.com") }

  project       = var.project
  tenant        = google_identity_platform_tenant.customers[each.key].name
  enabled       = true
  idp_id        = "github.com"
  client_id     = var.github_client_id
  client_secret = var.github_client_secret
}

# The blocking function, and where its source lies.

data "archive_file" "function" {
  type        = "zip"
  source_dir  = "${path.module}/function"
  output_path = "${path.module}/.function.zip"
  excludes    = ["node_modules", "claims.test.js"]
}

resource "google_storage_bucket" "source" {
  project                     = var.project
  name                        = "${var.project}-license-functions"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }
}

resource "google_storage_bucket_object" "source" {
  name   = "before-sign-in-${data.archive_file.function.output_md5}.zip"
  bucket = google_storage_bucket.source.name
  source = data.archive_file.function.output_path
}

resource "google_service_account" "function" {
  project      = var.project
  account_id   = "license-before-sign-in"
  display_name = "Blocking function: has no rights at all"
}

resource "google_cloudfunctions_function" "before_sign_in" {
  project               = var.project
  region                = var.region
  name                  = "license-before-sign-in"
  description           = "Puts tenant_id and roles into each token"
  runtime               = "nodejs22"
  entry_point           = "beforeSignIn"
  available_memory_mb   = 256
  timeout               = 7
  min_instances         = var.min_instances
  trigger_http          = true
  service_account_email = google_service_account.function.email
  source_archive_bucket = google_storage_bucket.source.name
  source_archive_object = google_storage_bucket_object.source.name

  https_trigger_security_level = "SECURE_ALWAYS"

  environment_variables = {
    PLATFORM_ADMINS = join(",", var.platform_admins)
  }
}

# Identity Platform calls it without an account of Google; the function believes only what is signed by Identity Platform.
resource "google_cloudfunctions_function_iam_member" "invoker" {
  # checkov:skip=CKV_GCP_107: a blocking function must be callable; its library verifies the caller's signature
  project        = var.project
  region         = var.region
  cloud_function = google_cloudfunctions_function.before_sign_in.name
  role           = "roles/cloudfunctions.invoker"
  member         = "allUsers"
}
