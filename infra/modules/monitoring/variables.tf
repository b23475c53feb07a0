variable "project" {
  description = "Project id."
  type        = string
}

variable "host" {
  description = "Name of the API."
  type        = string
}

variable "pagerduty_key" {
  description = "Integration key of PagerDuty's service for pages."
  type        = string
  sensitive   = true
}

variable "runbook_url" {
  description = "Where the runbook is."
  type        = string
  default     = "https://github.com/coditect-ai/coditect-license/blob/main/docs/RUNBOOK.md"
}
