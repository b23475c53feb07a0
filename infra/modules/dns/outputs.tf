output "address" {
  description = "Address of the load balancer."
  value       = google_compute_global_address.api.address
}

output "name_servers" {
  description = "What the registrar must point to, when the zone was made here."
  value       = google_dns_managed_zone.this[*].name_servers
}

output "cert_manager_email" {
  description = "Account of cert-manager, for its Kubernetes service account's annotation."
  value       = google_service_account.cert_manager.email
}
