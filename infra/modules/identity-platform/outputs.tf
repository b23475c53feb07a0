output "issuer" {
  description = "OIDC_ISSUER of the service."
  value       = "https://securetoken.google.com/${var.project}"
}

output "audience" {
  description = "OIDC_AUDIENCE of the service."
  value       = var.project
}

output "identity_tenants" {
  description = "Customer -> the `identity_tenant` to give its tenant in the service."
  value       = { for name, tenant in google_identity_platform_tenant.customers : name => tenant.name }
}
