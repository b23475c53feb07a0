output "name" {
  description = "Name of the cluster."
  value       = google_container_cluster.this.name
}

output "nodes_email" {
  description = "Account of the nodes."
  value       = google_service_account.nodes.email
}

output "workload_emails" {
  description = "Kubernetes service account -> Google's account."
  value       = { for name, account in google_service_account.workloads : name => account.email }
}

output "archive_bucket" {
  description = "Bucket of `archive`."
  value       = google_storage_bucket.archive.name
}
