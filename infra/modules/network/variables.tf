variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region of everything."
  type        = string
}

variable "nodes_cidr" {
  description = "Addresses of nodes."
  type        = string
}

variable "pods_cidr" {
  description = "Addresses of pods."
  type        = string
}

variable "services_cidr" {
  description = "Addresses of Kubernetes services."
  type        = string
}

variable "private_services_cidr" {
  description = "Addresses of Cloud SQL and Memorystore; k8s/overlays/*/ranges.yaml names the same."
  type        = string
}
