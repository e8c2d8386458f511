"""What is written into Envoy's files: pure functions from pools and weights to Envoy's own API (v3).

The values are measured ones: with them rolling updates, scaling and crashes lost no request.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

Json = dict[str, Any]
TYPE = "type.googleapis.com/envoy"
READ = "connect-failure,refused-stream,reset,gateway-error"
WRITE = "connect-failure,refused-stream,reset-before-request"  # an order may have arrived
# TCP_USER_TIMEOUT: a machine that lost its power resets no connection; what is in flight would wait for long.
UNHEARD = {"level": 6, "name": 18, "int_value": 2000, "state": "STATE_PREBIND"}  # milliseconds
ACCESS_LOG = {
    "t": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "pool": "%UPSTREAM_CLUSTER%",
    "replica": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "release": "%RESP(X-RELEASE)%",
}


def resources(*items: Json) -> Json:
    return {"resources": list(items)}


def bootstrap(admin_port: int) -> Json:
    def watched(name: str) -> Json:
        return {"resource_api_version": "V3", "path_config_source": {"path": f"xds/{name}.json"}}

    return {
        "node": {"id": "lab", "cluster": "devops-lab"},
        "admin": {"address": _address("127.0.0.1", admin_port)},
        "dynamic_resources": {"cds_config": watched("cds"), "lds_config": watched("lds")},
        "layered_runtime": {
            "layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 1000}}]
        },
    }


def listener(port: int) -> Json:
    """Where the customers come in."""
    manager = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "shop",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "rds": {
            "route_config_name": "shop",
            "config_source": {"resource_api_version": "V3", "path_config_source": {"path": "xds/rds.json"}},
        },
        "common_http_protocol_options": {"idle_timeout": "60s"},
        "stream_idle_timeout": "30s",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router"},
            }
        ],
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": "access.jsonl",
                    "log_format": {"json_format": ACCESS_LOG},
                },
            }
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "@type": f"{TYPE}.config.listener.v3.Listener",
        "name": "ingress",
        "enable_reuse_port": False,  # else two proxies may share a port, and each other's customers
        "address": _address("127.0.0.1", port),
        "filter_chains": [chain],
    }


def routes(weights: Mapping[str, int]) -> Json:
    """All traffic by the pools' weights; 503 when no pool has any."""
    if not weights:
        closed = {"status": 503, "body": {"inline_string": "no pool takes traffic"}}
        table: list[Json] = [{"match": {"prefix": "/"}, "direct_response": closed}]
    else:
        reads = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS"}}}
        table = [
            {"match": {"prefix": "/", "headers": [reads]}, "route": _route(weights, READ)},
            {"match": {"prefix": "/"}, "route": _route(weights, WRITE)},
        ]
    return {
        "@type": f"{TYPE}.config.route.v3.RouteConfiguration",
        "name": "shop",
        "virtual_hosts": [
            {
                "name": "shop",
                "domains": ["*"],
                "routes": table,
                "include_request_attempt_count": True,
                # A browser sends those of JupyterLab, or a hub, along with what its frame asks for. The
                # shop has no use for them, and whatever it runs could act in the reader's name.
                "request_headers_to_remove": ["authorization", "cookie", "x-xsrftoken"],
            }
        ],
        "validate_clusters": False,
    }


def _route(weights: Mapping[str, int], retry_on: str) -> Json:
    predicate = "envoy.retry_host_predicates.previous_hosts"
    kind = f"{TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    shares = [{"name": pool, "weight": weights[pool]} for pool in sorted(weights)]
    return {
        "weighted_clusters": {"clusters": shares},
        "timeout": "30s",
        "retry_policy": {
            "retry_on": retry_on,
            "num_retries": 3,
            "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
            "retry_host_predicate": [{"name": predicate, "typed_config": {"@type": kind}}],
            "host_selection_retry_max_attempts": 5,
        },
    }


def cluster(pool: str) -> Json:
    """How a pool's replicas are checked and used."""
    source = {"resource_api_version": "V3", "path_config_source": {"path": f"xds/eds-{pool}.json"}}
    http = f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"
    most = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 512}
    return {
        "@type": f"{TYPE}.config.cluster.v3.Cluster",
        "name": pool,
        "type": "EDS",
        "connect_timeout": "0.5s",
        "lb_policy": "LEAST_REQUEST",
        "eds_cluster_config": {"service_name": pool, "eds_config": source},
        "ignore_health_on_host_removal": True,
        **({"upstream_bind_config": {"socket_options": [UNHEARD]}} if sys.platform == "linux" else {}),
        "common_lb_config": {
            # When no replica passes its check, who is only slow is still tried: better than a certain 503.
            "healthy_panic_threshold": {"value": 1},
            "update_merge_window": "0s",  # the default holds changes back: requests go to who is gone
            "ignore_new_hosts_until_first_hc": True,
        },
        "circuit_breakers": {"thresholds": [most]},
        "typed_extension_protocol_options": {
            http.removeprefix("type.googleapis.com/"): {
                "@type": http,
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": "2s"},  # below the replicas' own keep-alive
            }
        },
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "0.25s",
                "unhealthy_interval": "0.1s",  # who starts is soon asked again
                "no_traffic_interval": "0.1s",  # the same, before its pool takes any traffic
                "no_traffic_healthy_interval": "0.25s",
                "unhealthy_threshold": 3,  # a late answer or two is CPU pressure; a 503 counts at once
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz"},
            }
        ],
        "outlier_detection": {
            "consecutive_gateway_failure": 3,
            "enforcing_consecutive_gateway_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "consecutive_local_origin_failure": 2,
            "split_external_local_origin_errors": True,
            "enforcing_consecutive_local_origin_failure": 100,
            "interval": "0.25s",
            "base_ejection_time": "2s",
            "max_ejection_percent": 100,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
        },
    }


def load(pool: str, addresses: Iterable[tuple[str, int]], draining: Collection[tuple[str, int]] = ()) -> Json:
    """The addresses of a pool; one that drains finishes what it has and gets nothing new."""
    return {
        "@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": pool,
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {"address": _address(host, port)},
                        "health_status": "DRAINING" if (host, port) in draining else "UNKNOWN",
                    }
                    for host, port in sorted(addresses)
                ]
            }
        ],
    }


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}
