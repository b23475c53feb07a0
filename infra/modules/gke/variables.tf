variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region of the cluster."
  type        = string
}

variable "network_id" {
  description = "The network."
  type        = string
}

variable "subnetwork_id" {
  description = "Where nodes live."
  type        = string
}

variable "control_plane_cidr" {
  description = "Addresses of the control plane, a /28."
  type        = string
  default     = "172.16.0.0/28"
}

variable "operator_cidrs" {
  description = "Name -> range that may reach the API of Kubernetes."
  type        = map(string)
}

variable "machine_type" {
  description = "Machine of a node."
  type        = string
}

variable "spot" {
  description = "Cheap nodes that Google may take away at any time."
  type        = bool
  default     = false
}

variable "min_nodes_per_zone" {
  description = "Nodes in each of three zones, at least."
  type        = number
  default     = 1
}

variable "max_nodes_per_zone" {
  description = "Nodes in each of three zones, at most."
  type        = number
  default     = 3
}

variable "archive_location" {
  description = "Where the archive's bucket is."
  type        = string
  default     = "US"
}

variable "deletion_protection" {
  description = "Whether the cluster refuses to be destroyed."
  type        = bool
  default     = true
}
