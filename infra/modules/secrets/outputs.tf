output "owner_password" {
  description = "Password of license_owner, for the cloud-sql module."
  value       = random_password.owner.result
  sensitive   = true
}
