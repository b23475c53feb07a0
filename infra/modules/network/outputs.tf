output "network_id" {
  description = "The network, once the peering is there: what lives behind it must wait for that."
  value       = google_service_networking_connection.private_services.network
}

output "subnetwork_id" {
  description = "Where nodes live."
  value       = google_compute_subnetwork.nodes.id
}
