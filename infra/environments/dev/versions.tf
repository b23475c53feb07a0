terraform {
  required_version = ">= 1.8"

  required_providers {
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.7"
    }
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.7"
    }
  }

  # Holds passwords: the bucket is made by infra/README.md, step 2, readable by operators only, with versions.
  backend "gcs" {
    bucket = "coditect-license-staging-tofu"
    prefix = "license/dev"
  }
}

provider "google" {
  project = var.project
  region  = var.region

  # APIs of projects ask whose quota they count on.
  billing_project       = var.project
  user_project_override = true
}
