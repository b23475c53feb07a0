variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region of the repository."
  type        = string
}

variable "reader_emails" {
  description = "Service accounts that pull images: the nodes'."
  type        = list(string)
}

variable "github_repository" {
  description = "owner/name: the only repository whose workflows may push and deploy."
  type        = string
}

variable "github_environment" {
  description = "GitHub environment that may: its reviewers are the gate."
  type        = string
}
