"""`podidentity controller` (upstream: MIC): makes AzureAssignedIdentities and Azure follow the bindings."""
