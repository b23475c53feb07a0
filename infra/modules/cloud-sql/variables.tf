variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region of the instance and its standby."
  type        = string
}

variable "network_id" {
  description = "The network that the instance is peered into."
  type        = string
}

variable "tier" {
  description = "Machine type, db-custom-<cores>-<MB>."
  type        = string
}

variable "availability_type" {
  description = "REGIONAL: a synchronous standby in another zone takes over. ZONAL: none."
  type        = string
  default     = "REGIONAL"
}

variable "disk_gb" {
  description = "Disk at the start, GB; it grows by itself and never shrinks."
  type        = number
  default     = 100
}

variable "disk_limit_gb" {
  description = "Where growing ends, GB."
  type        = number
  default     = 1000
}

variable "backup_location" {
  description = "Where backups are kept: another place than the region, so that they outlive it."
  type        = string
  default     = "us"
}

variable "retained_backups" {
  description = "Daily backups kept."
  type        = number
  default     = 30
}

variable "owner_password" {
  description = "Password of license_owner."
  type        = string
  sensitive   = true
}

variable "deletion_protection" {
  description = "Whether Google refuses to delete the instance."
  type        = bool
  default     = true
}
