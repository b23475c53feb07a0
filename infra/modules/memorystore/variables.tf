variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region of primary and replica."
  type        = string
}

variable "network_id" {
  description = "The network that the instance is peered into."
  type        = string
}

variable "memory_gb" {
  description = "A live session takes about half a kilobyte: 1 GB holds more than a million."
  type        = number
  default     = 1
}
