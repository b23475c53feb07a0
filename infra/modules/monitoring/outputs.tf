output "channel" {
  description = "Notification channel of pages."
  value       = google_monitoring_notification_channel.pagerduty.id
}
