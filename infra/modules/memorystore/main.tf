# The gate. Everything in it can be made again from the log, and is.

resource "google_redis_instance" "this" {
  project                 = var.project
  name                    = "license"
  region                  = var.region
  tier                    = "STANDARD_HA"
  memory_size_gb          = var.memory_gb
  redis_version           = "REDIS_7_2"
  authorized_network      = var.network_id
  connect_mode            = "PRIVATE_SERVICE_ACCESS"
  auth_enabled            = true
  transit_encryption_mode = "SERVER_AUTHENTICATION"

  redis_configs = {
    # An evicted seat would be one that the gate forgot: it refuses writes instead, and the log decides alone.
    maxmemory-policy = "noeviction"
  }

  maintenance_policy {
    weekly_maintenance_window {
      day = "SUNDAY"

      start_time {
        hours   = 4
        minutes = 0
      }
    }
  }
}
