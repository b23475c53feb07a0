# One of everything, small, on cheap nodes; the same modules as production.

locals {
  apis = toset([
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudkms.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "dns.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "identitytoolkit.googleapis.com",
    "monitoring.googleapis.com",
    "redis.googleapis.com",
    "secretmanager.googleapis.com",
    "servicenetworking.googleapis.com",
    "sqladmin.googleapis.com",
    "sts.googleapis.com",
  ])
}

resource "google_project_service" "apis" {
  for_each = local.apis

  project            = var.project
  service            = each.value
  disable_on_destroy = false
}

module "network" {
  source = "../../modules/network"

  project               = var.project
  region                = var.region
  nodes_cidr            = "10.128.32.0/22"
  pods_cidr             = "10.128.64.0/18"
  services_cidr         = "10.128.48.0/20"
  private_services_cidr = "10.128.0.0/20"

  depends_on = [google_project_service.apis]
}

module "gke" {
  source = "../../modules/gke"

  project             = var.project
  region              = var.region
  network_id          = module.network.network_id
  subnetwork_id       = module.network.subnetwork_id
  operator_cidrs      = var.operator_cidrs
  machine_type        = "e2-standard-2"
  spot                = true
  min_nodes_per_zone  = 1
  max_nodes_per_zone  = 2
  deletion_protection = false
}

module "kms" {
  source = "../../modules/kms"

  project          = var.project
  region           = var.region
  protection_level = "SOFTWARE"
  signer_email     = module.gke.workload_emails["license-api"]
  rotator_email    = module.gke.workload_emails["license-keys"]
}

module "cloud_sql" {
  source = "../../modules/cloud-sql"

  project             = var.project
  region              = var.region
  network_id          = module.network.network_id
  owner_password      = module.secrets.owner_password
  tier                = "db-custom-1-3840"
  availability_type   = "ZONAL"
  disk_gb             = 20
  disk_limit_gb       = 100
  retained_backups    = 7
  deletion_protection = false
}

module "memorystore" {
  source = "../../modules/memorystore"

  project    = var.project
  region     = var.region
  network_id = module.network.network_id
  memory_gb  = 1
}

module "secrets" {
  source = "../../modules/secrets"

  project       = var.project
  database_host = module.cloud_sql.host
  database_ca   = module.cloud_sql.ca
  redis_url     = module.memorystore.url
  redis_ca      = module.memorystore.ca
  reader_email  = module.gke.workload_emails["license-secrets"]
}

# Values that were put in by hand (infra/README.md, step 4).
data "google_secret_manager_secret_version" "given" {
  for_each = toset([
    "license-oauth-github-id",
    "license-oauth-github-secret",
    "license-oauth-google-id",
    "license-oauth-google-secret",
    "license-pagerduty-page",
  ])

  project = var.project
  secret  = each.value
}

module "identity_platform" {
  source = "../../modules/identity-platform"

  project              = var.project
  region               = var.region
  authorized_domains   = [var.host, "${var.project}.firebaseapp.com"]
  tenants              = var.tenants
  platform_admins      = var.platform_admins
  google_client_id     = data.google_secret_manager_secret_version.given["license-oauth-google-id"].secret_data
  google_client_secret = data.google_secret_manager_secret_version.given["license-oauth-google-secret"].secret_data
  github_client_id     = data.google_secret_manager_secret_version.given["license-oauth-github-id"].secret_data
  github_client_secret = data.google_secret_manager_secret_version.given["license-oauth-github-secret"].secret_data
  min_instances        = 0

  depends_on = [google_project_service.apis]
}

module "artifact_registry" {
  source = "../../modules/artifact-registry"

  project            = var.project
  region             = var.region
  reader_emails      = concat([module.gke.nodes_email], var.image_readers)
  github_repository  = var.github_repository
  github_environment = "staging"
}

module "dns" {
  source = "../../modules/dns"

  project     = var.project
  zone_name   = "staging-coditect-ai"
  zone_domain = "staging.coditect.ai"
  create_zone = true
  host        = var.host

  depends_on = [module.gke]
}

module "monitoring" {
  source = "../../modules/monitoring"

  project       = var.project
  host          = var.host
  pagerduty_key = data.google_secret_manager_secret_version.given["license-pagerduty-page"].secret_data
}
