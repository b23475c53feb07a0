output "host" {
  description = "The name to connect to; its certificate says the same."
  value       = trimsuffix(google_sql_database_instance.this.dns_name, ".")
}

output "ca" {
  description = "The authority that signed its certificate, PEM."
  value       = google_sql_database_instance.this.server_ca_cert[0].cert
}

output "instance" {
  description = "Name of the instance."
  value       = google_sql_database_instance.this.name
}
