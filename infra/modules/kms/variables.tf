variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region of the key ring; it can never be moved."
  type        = string
}

variable "protection_level" {
  description = "HSM: about 50 signatures a second and region. SOFTWARE: about 1,000."
  type        = string
  default     = "SOFTWARE"

  validation {
    condition     = contains(["HSM", "SOFTWARE"], var.protection_level)
    error_message = "protection_level must be HSM or SOFTWARE."
  }
}

variable "signer_email" {
  description = "Service account of `serve`."
  type        = string
}

variable "rotator_email" {
  description = "Service account of `keys rotate`."
  type        = string
}
