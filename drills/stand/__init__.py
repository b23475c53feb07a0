"""What the drills stand on: real Postgres, Redis, Prometheus and replicas of the service on this machine, an issuer, a
stand-in for Cloud KMS, clients that behave like CODITECT, and a report. All of it ends with the drill."""
