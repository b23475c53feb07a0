# What must not stand in a repository. External Secrets copies it into the cluster; k8s/base/secrets.yaml names the same.

resource "random_password" "owner" {
  length  = 40
  special = false
}

resource "random_password" "service" {
  length  = 40
  special = false
}

locals {
  # Made here, from what the other modules say.
  made = {
    license-database-url       = "postgres://license_api:${random_password.service.result}@${var.database_host}:5432/license?sslmode=require"
    license-database-owner-url = "postgres://license_owner:${random_password.owner.result}@${var.database_host}:5432/license?sslmode=require"
    license-service-password   = random_password.service.result
    license-redis-url          = var.redis_url
    license-cloud-sql-ca       = var.database_ca
    license-memorystore-ca     = var.redis_ca
  }
  # Put in by hand, once (infra/README.md, step 4): others gave them to us.
  given = toset([
    "license-pagerduty-page",
    "license-pagerduty-ticket",
    "license-oauth-google-id",
    "license-oauth-google-secret",
    "license-oauth-github-id",
    "license-oauth-github-secret",
  ])
  # What External Secrets may read: the owner's password itself is not among it, nor are those of the identity provider.
  read_in_cluster = toset([
    "license-database-url",
    "license-database-owner-url",
    "license-redis-url",
    "license-cloud-sql-ca",
    "license-memorystore-ca",
    "license-pagerduty-page",
    "license-pagerduty-ticket",
  ])
  all = setunion(toset(keys(local.made)), local.given)
}

resource "google_secret_manager_secret" "this" {
  for_each = local.all

  project   = var.project
  secret_id = each.value

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "made" {
  for_each = toset(keys(local.made))

  secret      = google_secret_manager_secret.this[each.value].id
  secret_data = local.made[each.value]
}

resource "google_secret_manager_secret_iam_member" "cluster" {
  for_each = local.read_in_cluster

  project   = var.project
  secret_id = google_secret_manager_secret.this[each.value].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = "serviceAccount:${var.reader_email}"
}
