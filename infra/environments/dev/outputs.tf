output "kms_key" {
  description = "KMS_KEY in k8s/overlays."
  value       = module.kms.key
}

output "oidc_issuer" {
  description = "OIDC_ISSUER in k8s/overlays."
  value       = module.identity_platform.issuer
}

output "identity_tenants" {
  description = "Customer -> identity_tenant."
  value       = module.identity_platform.identity_tenants
}

output "repository" {
  description = "Where images are."
  value       = module.artifact_registry.repository
}

output "workload_identity_provider" {
  description = "GitHub variable WORKLOAD_IDENTITY_PROVIDER."
  value       = module.artifact_registry.workload_identity_provider
}

output "deployer" {
  description = "GitHub variable DEPLOYER."
  value       = module.artifact_registry.deployer_email
}

output "cluster" {
  description = "Name of the cluster."
  value       = module.gke.name
}

output "address" {
  description = "Address of the API."
  value       = module.dns.address
}

output "name_servers" {
  description = "NS records of staging.coditect.ai in coditect.ai."
  value       = module.dns.name_servers
}
