# The log: the one thing that cannot be made again from anything else.

resource "google_sql_database_instance" "this" {
  project             = var.project
  name                = "license"
  region              = var.region
  database_version    = "POSTGRES_16"
  deletion_protection = var.deletion_protection

  settings {
    tier                        = var.tier
    edition                     = "ENTERPRISE"
    availability_type           = var.availability_type
    disk_type                   = "PD_SSD"
    disk_size                   = var.disk_gb
    disk_autoresize             = true
    disk_autoresize_limit       = var.disk_limit_gb
    deletion_protection_enabled = var.deletion_protection

    backup_configuration {
      enabled                        = true
      start_time                     = "02:00"
      location                       = var.backup_location
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = var.retained_backups
        retention_unit   = "COUNT"
      }
    }

    ip_configuration {
      ipv4_enabled                                  = false
      private_network                               = var.network_id
      enable_private_path_for_google_cloud_services = true
      ssl_mode                                      = "ENCRYPTED_ONLY"
      # Its certificates name the instance, so that a client can tell it from another: rustls checks names always.
      server_ca_mode = "GOOGLE_MANAGED_CAS_CA"
    }

    maintenance_window {
      day          = 7
      hour         = 3
      update_track = "stable"
    }

    insights_config {
      query_insights_enabled  = true
      query_string_length     = 1024
      record_application_tags = false
      record_client_address   = false
    }

    # A replica of the service has 16 connections, a projection 4; ten replicas, jobs and people fit.
    database_flags {
      name  = "max_connections"
      value = "300"
    }
    # One long write transaction holds back every reader of the log: it ends here.
    database_flags {
      name  = "idle_in_transaction_session_timeout"
      value = "60000"
    }
    # What was answered is on disk.
    database_flags {
      name  = "synchronous_commit"
      value = "on"
    }
    database_flags {
      name  = "log_min_duration_statement"
      value = "1000"
    }
    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }
    database_flags {
      name  = "log_connections"
      value = "on"
    }
    database_flags {
      name  = "log_disconnections"
      value = "on"
    }
    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }
    database_flags {
      name  = "log_temp_files"
      value = "0"
    }
    database_flags {
      name  = "cloudsql.enable_pgaudit"
      value = "on"
    }
    # Heartbeats are many small rows in the newest partition: vacuum sooner than by default.
    database_flags {
      name  = "autovacuum_vacuum_insert_scale_factor"
      value = "0.05"
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_sql_database" "license" {
  project         = var.project
  instance        = google_sql_database_instance.this.name
  name            = "license"
  deletion_policy = "ABANDON"
}

# Owns the database and migrates. The service's own login is made by it (infra/sql/service-login.sql), because a user
# made here would be a member of cloudsqlsuperuser, and the service's shall be a member of license_service only.
resource "google_sql_user" "owner" {
  project         = var.project
  instance        = google_sql_database_instance.this.name
  name            = "license_owner"
  password        = var.owner_password
  deletion_policy = "ABANDON"
}

# The instance by the name that its certificate says.
resource "google_dns_managed_zone" "sql" {
  project     = var.project
  name        = "sql-goog"
  dns_name    = google_sql_database_instance.this.dns_name
  description = "Cloud SQL by the name in its certificate"
  visibility  = "private"

  private_visibility_config {
    networks {
      network_url = var.network_id
    }
  }
}

resource "google_dns_record_set" "sql" {
  project      = var.project
  managed_zone = google_dns_managed_zone.sql.name
  name         = google_sql_database_instance.this.dns_name
  type         = "A"
  ttl          = 60
  rrdatas      = [google_sql_database_instance.this.private_ip_address]
}
