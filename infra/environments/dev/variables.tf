variable "project" {
  description = "Project id."
  type        = string
  default     = "coditect-license-staging"
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "us-central1"
}

variable "host" {
  description = "Name of the API."
  type        = string
  default     = "auth.staging.coditect.ai"
}

variable "operator_cidrs" {
  description = "Name -> range that may reach the API of Kubernetes."
  type        = map(string)
}

variable "platform_admins" {
  description = "Addresses that are platform_admin."
  type        = list(string)
}

variable "tenants" {
  description = "Customer -> providers of its people."
  type        = map(object({ providers = set(string) }))
  default     = {}
}

variable "github_repository" {
  description = "owner/name whose workflows push and deploy."
  type        = string
  default     = "coditect-ai/coditect-license"
}

variable "image_readers" {
  description = "Others that pull images from here: the deployer of production, which copies what staging ran. Set once it exists."
  type        = list(string)
  default     = []
}
