variable "project" {
  description = "Project id."
  type        = string
}

variable "zone_name" {
  description = "Name of the Cloud DNS zone."
  type        = string
}

variable "zone_domain" {
  description = "Domain of the zone, without a final dot."
  type        = string
}

variable "create_zone" {
  description = "Whether the zone is made here, or is there already."
  type        = bool
  default     = false
}

variable "host" {
  description = "Name of the API, without a final dot."
  type        = string
}
