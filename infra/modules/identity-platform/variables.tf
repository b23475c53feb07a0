variable "project" {
  description = "Project id; it is also the audience of the tokens."
  type        = string
}

variable "region" {
  description = "Region of the blocking function."
  type        = string
}

variable "authorized_domains" {
  description = "Domains that may start a sign-in."
  type        = list(string)
}

variable "tenants" {
  description = "Customer -> the providers that its people sign in with: google.com, github.com."
  type        = map(object({ providers = set(string) }))
  default     = {}
}

variable "platform_admins" {
  description = "Verified addresses that are platform_admin when they sign in without a tenant."
  type        = list(string)
}

variable "google_client_id" {
  description = "OAuth client of Google."
  type        = string
}

variable "google_client_secret" {
  description = "Its secret."
  type        = string
  sensitive   = true
}

variable "github_client_id" {
  description = "OAuth app of GitHub."
  type        = string
}

variable "github_client_secret" {
  description = "Its secret."
  type        = string
  sensitive   = true
}

variable "min_instances" {
  description = "Instances of the blocking function that wait warm: a sign-in allows it seven seconds."
  type        = number
  default     = 1
}
