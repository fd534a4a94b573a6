"""Run inside a pod: azure-identity as any application uses it; prints the token."""

from azure.identity import ManagedIdentityCredential


def main() -> None:
    """Print the token that the SDK gets for ARM; its audience ends with a slash, as in the demo's curl."""
    print(ManagedIdentityCredential().get_token("https://management.azure.com//.default").token)  # noqa: T201 - a program


if __name__ == "__main__":
    main()
