output "url" {
  description = "REDIS_URL of the service."
  value       = "rediss://:${google_redis_instance.this.auth_string}@${google_redis_instance.this.host}:${google_redis_instance.this.port}"
  sensitive   = true
}

output "ca" {
  description = "The authorities that may sign its certificate, PEM."
  value       = join("\n", google_redis_instance.this.server_ca_certs[*].cert)
}
