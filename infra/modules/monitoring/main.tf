# What watches from outside the cluster: whether the API answers from the world, and whether our own alerting still lives.
# Everything else is in k8s/monitoring, and goes to PagerDuty by Alertmanager.

resource "google_monitoring_notification_channel" "pagerduty" {
  project      = var.project
  display_name = "PagerDuty: license, page"
  type         = "pagerduty"

  sensitive_labels {
    service_key = var.pagerduty_key
  }
}

resource "google_monitoring_uptime_check_config" "ready" {
  project          = var.project
  display_name     = "license: /ready"
  period           = "60s"
  timeout          = "10s"
  selected_regions = ["USA", "EUROPE", "ASIA_PACIFIC"]

  http_check {
    path           = "/ready"
    port           = 443
    use_ssl        = true
    validate_ssl   = true
    request_method = "GET"

    accepted_response_status_codes {
      status_class = "STATUS_CLASS_2XX"
    }
  }

  monitored_resource {
    type = "uptime_url"

    labels = {
      project_id = var.project
      host       = var.host
    }
  }
}

resource "google_monitoring_alert_policy" "unreachable" {
  project      = var.project
  display_name = "license: not reachable from the internet"
  combiner     = "OR"
  severity     = "CRITICAL"

  conditions {
    display_name = "/ready fails from two regions for three minutes"

    condition_threshold {
      filter          = "metric.type=\"monitoring.googleapis.com/uptime_check/check_passed\" AND resource.type=\"uptime_url\" AND metric.label.check_id=\"${google_monitoring_uptime_check_config.ready.uptime_check_id}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 1
      duration        = "180s"

      aggregations {
        alignment_period     = "120s"
        per_series_aligner   = "ALIGN_NEXT_OLDER"
        cross_series_reducer = "REDUCE_COUNT_FALSE"
        group_by_fields      = ["resource.label.host"]
      }
    }
  }

  documentation {
    content   = "Users cannot reach the API. ${var.runbook_url}#noreplicaanswers"
    mime_type = "text/markdown"
  }

  notification_channels = [google_monitoring_notification_channel.pagerduty.id]

  alert_strategy {
    auto_close = "1800s"
  }
}

# Prometheus' own silence would look like peace.
resource "google_monitoring_alert_policy" "no_metrics" {
  project      = var.project
  display_name = "license: no metrics arrive"
  combiner     = "OR"
  severity     = "WARNING"

  conditions {
    display_name = "No sample of license_postgres_up for ten minutes"

    condition_absent {
      filter   = "metric.type=\"prometheus.googleapis.com/license_postgres_up/gauge\" AND resource.type=\"prometheus_target\""
      duration = "600s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MEAN"
        cross_series_reducer = "REDUCE_MAX"
      }
    }
  }

  documentation {
    content   = "No alert of ours can fire while this lasts. ${var.runbook_url}#nometrics"
    mime_type = "text/markdown"
  }

  notification_channels = [google_monitoring_notification_channel.pagerduty.id]
}

# A disk that is nearly full stops the log; it grows by itself up to its limit.
resource "google_monitoring_alert_policy" "disk" {
  project      = var.project
  display_name = "license: the database's disk is nearly full"
  combiner     = "OR"
  severity     = "WARNING"

  conditions {
    display_name = "More than 85 % for 15 minutes"

    condition_threshold {
      filter          = "metric.type=\"cloudsql.googleapis.com/database/disk/utilization\" AND resource.type=\"cloudsql_database\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0.85
      duration        = "900s"

      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  documentation {
    content   = "Raise disk_limit_gb of infra/modules/cloud-sql, and look why the archive does not shrink the log. ${var.runbook_url}#databasedisknearlyfull"
    mime_type = "text/markdown"
  }

  notification_channels = [google_monitoring_notification_channel.pagerduty.id]
}
