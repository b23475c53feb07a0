variable "project" {
  description = "Project id."
  type        = string
}

variable "database_host" {
  description = "Name of the Cloud SQL instance, as its certificate says it."
  type        = string
}

variable "database_ca" {
  description = "Authority of its certificate, PEM."
  type        = string
}

variable "redis_url" {
  description = "REDIS_URL."
  type        = string
  sensitive   = true
}

variable "redis_ca" {
  description = "Authorities of its certificate, PEM."
  type        = string
}

variable "reader_email" {
  description = "Account of External Secrets."
  type        = string
}
