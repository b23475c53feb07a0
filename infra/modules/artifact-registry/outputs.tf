output "repository" {
  description = "What image names begin with."
  value       = "${google_artifact_registry_repository.this.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.this.repository_id}"
}

output "workload_identity_provider" {
  description = "Repository variable WORKLOAD_IDENTITY_PROVIDER."
  value       = google_iam_workload_identity_pool_provider.github.name
}

output "deployer_email" {
  description = "Repository variable DEPLOYER."
  value       = google_service_account.deployer.email
}
