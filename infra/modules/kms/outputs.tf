output "key" {
  description = "KMS_KEY of the service."
  value       = google_kms_crypto_key.signing.id
}
