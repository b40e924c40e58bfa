"""Seeded faults that prevent the parts of a deployment from connecting to each other."""

from __future__ import annotations

from deploy.seeding import (
    ManifestFault,
    pod_of,
    remove,
    remove_variables,
    set_field,
    set_sidecar_variable,
    set_variable,
)

S, P = "staging", "production"
_MTLS = ("mtls",)
_PROXY = ("overload-proxy",)

CONNECTION_FAULTS = (
    # Certificates
    ManifestFault(
        "a certificate is for another name",
        S,
        set_field("Certificate", "marquee-cf", "spec/dnsNames", ["cf"]),
        _MTLS,
    ),
    ManifestFault(
        "a certificate's issuer does not exist",
        S,
        set_field("Certificate", "marquee-cf", "spec/issuerRef/name", "ca"),
        _MTLS,
    ),
    ManifestFault(
        "an issuer signs with a certificate that is not an authority's",
        S,
        set_field("Issuer", "marquee-ca", "spec/ca/secretName", "marquee-cf-tls"),
        _MTLS,
    ),
    ManifestFault(
        "the gateway's certificate lacks the usage client auth",
        S,
        set_field("Certificate", "marquee-gateway", "spec/usages", ["server auth"]),
        _MTLS,
    ),
    ManifestFault(
        "a server's certificate lacks the usage server auth",
        S,
        set_field("Certificate", "marquee-cf", "spec/usages", ["client auth"]),
        _MTLS,
    ),
    ManifestFault(
        "a backend admits another caller",
        S,
        set_variable("cf", "MARQUEE_CF_TLS_ALLOWED_CLIENTS", "gateway"),
        _MTLS,
    ),
    ManifestFault(
        "a certificate file is not in the Secret",
        S,
        set_variable("gateway", "MARQUEE_GATEWAY_BACKEND_CA", "/tls/backend.crt"),
        _MTLS,
    ),
    ManifestFault(
        "the gateway has no client certificate for backends",
        S,
        remove_variables("gateway", "MARQUEE_GATEWAY_BACKEND_CERT", "MARQUEE_GATEWAY_BACKEND_KEY"),
        _MTLS,
    ),
    ManifestFault(
        "a backend serves plaintext and the gateway expects TLS",
        S,
        remove_variables(
            "cf",
            "MARQUEE_CF_TLS_CERTIFICATE",
            "MARQUEE_CF_TLS_KEY",
            "MARQUEE_CF_TLS_CLIENT_CA",
            "MARQUEE_CF_TLS_ALLOWED_CLIENTS",
        ),
        _MTLS,
    ),
    ManifestFault(
        "a certificate's file is readable only by root",
        S,
        lambda o: next(v for v in pod_of(o, "cf")["volumes"] if v["name"] == "tls")[
            "secret"
        ].update(defaultMode=0o400),
        _MTLS,
    ),
    # Networks
    ManifestFault("any pod may call a backend", S, remove("NetworkPolicy", "marquee-cf")),
    ManifestFault("names cannot be resolved", P, remove("NetworkPolicy", "marquee-dns")),
    ManifestFault(
        "the gateway may not call the backends",
        P,
        remove("NetworkPolicy", "marquee-to-each-other"),
    ),
    ManifestFault(
        "an egress policy allows only the database",
        S,
        lambda o: o.append(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "marquee-postgres-only", "namespace": "marquee-staging"},
                "spec": {
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "marquee-gateway"}},
                    "policyTypes": ["Egress"],
                    "egress": [
                        {
                            "to": [
                                {
                                    "podSelector": {
                                        "matchLabels": {
                                            "app.kubernetes.io/name": "marquee-postgres"
                                        }
                                    }
                                }
                            ],
                            "ports": [{"port": 5432}],
                        }
                    ],
                },
            }
        ),
        ("postgres",),
    ),
    ManifestFault(
        "a headless Service's port differs from that of its pods",
        S,
        set_field("Service", "marquee-postgres", "spec/ports/0/port", 5433),
        ("postgres",),
    ),
    ManifestFault(
        "traces are sent where nothing listens",
        S,
        set_variable("gateway", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://marquee-otel:4317"),
        ("otel-collector",),
    ),
    ManifestFault(
        "connections have no maximum age",
        S,
        set_variable("gateway", "MARQUEE_GATEWAY_MAX_CONNECTION_AGE", "0"),
    ),
    ManifestFault(
        "a drain may stop all replicas", S, remove("PodDisruptionBudget", "marquee-gateway")
    ),
    # The overload proxy
    ManifestFault(
        "the overload proxy calls a port on which the gateway does not listen",
        S,
        set_variable("gateway", "MARQUEE_GATEWAY_LISTEN", "0.0.0.0:50062"),
        _PROXY,
    ),
    ManifestFault(
        "the overload proxy is the subject of the connection guard",
        S,
        set_variable("gateway", "MARQUEE_GATEWAY_CONNECTION_GUARD", "true"),
        _PROXY,
    ),
    ManifestFault(
        "callers bypass the overload proxy",
        S,
        set_field(
            "Service", "marquee-gateway", "spec/ports/0", {"port": 50061, "targetPort": "grpc"}
        ),
        _PROXY,
    ),
    ManifestFault(
        "the overload proxy listens on another port than its container's",
        S,
        set_sidecar_variable("LISTEN", ":50052"),
        _PROXY,
    ),
    ManifestFault(
        "the overload proxy has no limit",
        S,
        set_sidecar_variable("MAX_COMPUTED", ""),
        _PROXY,
    ),
    ManifestFault(
        "the overload proxy's metrics cannot be scraped",
        S,
        set_field(
            "PodMonitor",
            "marquee-overload-proxy",
            "spec/podMetricsEndpoints/0/port",
            "overload-metrics",
        ),
        _PROXY,
    ),
)
