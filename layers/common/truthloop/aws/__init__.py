"""boto3 adapters behind the ports: they alone know AWS's shapes, and decide by error code, never by text."""
