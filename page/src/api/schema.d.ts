// Written by `npm run types` from the interface's own description; not by hand.

export interface paths {
    "/api/v1/artifacts/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: fetching an artifact */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/audit": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: the audit log */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/badges/{team}/{badge}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: badges */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    badge: string;
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/caches": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: listing caches */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/dead-letters": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: listing dead letters */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/dead-letters/{id}/requeue": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Not supported yet: requeueing a dead letter */
        post: {
            parameters: {
                query?: never;
                header?: {
                    /** @description The same key is the same request for a day */
                    "Idempotency-Key"?: string;
                };
                path: {
                    id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                409: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/environments/{team}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: listing environments */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/environments/{team}/{environment}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: showing an environment */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    environment: string;
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        /** Not supported yet: changing an environment */
        put: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    environment: string;
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        post?: never;
        /** Not supported yet: removing an environment */
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    environment: string;
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/events/push": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Tells of a push. */
        post: operations["push_event"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/join-tokens": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Join tokens, without their texts. */
        get: operations["list_join_tokens"];
        put?: never;
        /** Makes a join token. Its text is in this answer and nowhere else. */
        post: operations["create_join_token"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/join-tokens/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Revokes a join token; nodes that have joined with it stay. */
        delete: operations["delete_join_token"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/node-certificates": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** When the certificates of nodes end, the nearest first. */
        get: operations["list_node_certificates"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/nodes": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** All nodes. */
        get: operations["list_nodes"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/nodes/{node}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A node and what runs on it. */
        get: operations["get_node"];
        put?: never;
        post?: never;
        /** Forgets a node whose agent is gone and which is cordoned or confirmed gone. */
        delete: operations["delete_node"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/nodes/{node}/confirm-gone": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Says that a machine is gone for good: its steps need not wait for its lease.
         * @description To be used only of a machine that is known to be off: a step that still runs there would run
         *     beside its next attempt.
         */
        post: operations["confirm_node_gone"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/nodes/{node}/cordon": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Places nothing more on a node; what runs there goes on. */
        post: operations["cordon_node"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/nodes/{node}/drain": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Empties a node: cordons it at once, and after the deadline places elsewhere what still runs. */
        post: operations["drain_node"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/nodes/{node}/uncordon": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Places steps on a node again; ends a drain, of which nothing is started twice. */
        post: operations["uncordon_node"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/openapi.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** This document. */
        get: operations["openapi"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/pipelines": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Registered pipelines. */
        get: operations["list_pipelines"];
        put?: never;
        /** Registers a pipeline. */
        post: operations["create_pipeline"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/pipelines/{team}/{pipeline}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A registered pipeline. */
        get: operations["get_pipeline"];
        /** Registers a pipeline or changes it. Runs that are there keep what they were made with. */
        put: operations["put_pipeline"];
        post?: never;
        /** Removes a pipeline. Its runs stay, and go on. */
        delete: operations["delete_pipeline"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/pipelines/{team}/{pipeline}/runs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Runs of one pipeline, newest first. */
        get: operations["list_pipeline_runs"];
        put?: never;
        /** Starts a run. */
        post: operations["create_run"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/pipelines/{team}/{pipeline}/runs/{run_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A run with all its steps, by its id or its number in the pipeline. */
        get: operations["get_pipeline_run"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/pipelines/validate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Checks a pipeline file without registering anything. */
        post: operations["validate_pipeline"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/registries": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: listing registries */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/registries/{host}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: showing a registry */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    host: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        /** Not supported yet: changing a registry */
        put: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    host: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        post?: never;
        /** Not supported yet: removing a registry */
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    host: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Runs of all pipelines, newest first. */
        get: operations["list_runs"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A run with all its steps. */
        get: operations["get_run"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}/artifacts": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: listing artifacts */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    run_id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        /** Not supported yet: storing artifacts */
        post: {
            parameters: {
                query?: never;
                header?: {
                    /** @description The same key is the same request for a day */
                    "Idempotency-Key"?: string;
                };
                path: {
                    run_id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                409: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}/cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Asks for the end of a run. It takes a moment: follow its events, or read it again. */
        post: operations["cancel_run"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Follows a run. */
        get: operations["run_events"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}/retry": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Not supported yet: retrying a run */
        post: {
            parameters: {
                query?: never;
                header?: {
                    /** @description The same key is the same request for a day */
                    "Idempotency-Key"?: string;
                };
                path: {
                    run_id: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                409: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}/steps/{step}/approve": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Not supported yet: approving a step */
        post: {
            parameters: {
                query?: never;
                header?: {
                    /** @description The same key is the same request for a day */
                    "Idempotency-Key"?: string;
                };
                path: {
                    run_id: string;
                    step: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                409: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}/steps/{step}/explain": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Why a step is where it is, or why not yet. */
        get: operations["explain_step"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}/steps/{step}/reject": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Not supported yet: rejecting a step */
        post: {
            parameters: {
                query?: never;
                header?: {
                    /** @description The same key is the same request for a day */
                    "Idempotency-Key"?: string;
                };
                path: {
                    run_id: string;
                    step: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                409: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}/steps/{step}/retry": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Not supported yet: retrying a step */
        post: {
            parameters: {
                query?: never;
                header?: {
                    /** @description The same key is the same request for a day */
                    "Idempotency-Key"?: string;
                };
                path: {
                    run_id: string;
                    step: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                409: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}/steps/{step}/shell": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Not supported yet: a shell in a step */
        post: {
            parameters: {
                query?: never;
                header?: {
                    /** @description The same key is the same request for a day */
                    "Idempotency-Key"?: string;
                };
                path: {
                    run_id: string;
                    step: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                409: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run_id}/steps/{step}/start": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Starts a step that waits for a person. */
        post: operations["start_step"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run}/logs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The logs of all steps of a run.
         * @description As plain text: one step after the other, each under a line `==> name, attempt 1 <==`. With
         *     `follow=true` or `Accept: text/event-stream` as server-sent events, interleaved as the bytes
         *     come: a `step` event names the step whose `log` and `bytes` events follow. The `id` says how far
         *     each step was read; `Last-Event-ID` resumes there. The events are those of one step's log.
         */
        get: operations["run_logs"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/runs/{run}/steps/{step}/logs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The log of one step.
         * @description As plain text (`text/plain`): the stored bytes and those that were not stored yet, exactly,
         *     from `offset` on, with the headers `X-Log-Attempt`, `X-Log-Offset` (of the first byte) and
         *     `X-Log-Complete` (`true` when the step has ended and all of its log is there); `X-Log-Lost: true`
         *     says that the rest was lost with its node. Of a step that still runs with another server's node
         *     the newest second may be missing; `follow` has it.
         *
         *     With `line` or `count` these lines only, and the headers `X-Log-Line` (number of the first) and
         *     `X-Log-Lines` (how many the log has so far). With `q` the lines that hold this text, as
         *     `number:line`, from `line` on and at most `count` (100 unless given, 1,000 at most); one request
         *     searches a bounded part of the log, `X-Log-Next-Line` says where to go on. `q` is plain text;
         *     without a capital letter it is found in capitals too; escape sequences of terminals are passed
         *     over. With `Accept: application/json` both come as JSON, which also says what each entry printed
         *     and bounds what it holds: 5,000 lines, a mebibyte, the first 16 KiB of a line.
         *
         *     With `follow=true` or `Accept: text/event-stream` as server-sent events:
         *
         *     | event | data |
         *     |---|---|
         *     | `step` | JSON `{"step","attempt","offset"}`: whose bytes follow |
         *     | `log` | text whose UTF-8 bytes are the log's bytes, newlines included |
         *     | `bytes` | base64 of bytes that are not such text (carriage returns, invalid UTF-8) |
         *     | `end` | JSON `{"step","attempt","total","complete","lost"}`; `complete` false: the rest is not there; `lost` true: it was lost with its node |
         *     | `done` | JSON `{}`: the stream ends; do not connect again |
         *
         *     Without `attempt` the stream goes on with each further attempt of the step: an `end` for the one,
         *     a `step` for the next. The `id` of an event is the offset after its bytes, in a second or later
         *     attempt `attempt.offset`; `Last-Event-ID` resumes there.
         */
        get: operations["step_logs"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/secrets/{team}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: listing secrets */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/secrets/{team}/{secret}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /** Not supported yet: storing a secret */
        put: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    secret: string;
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        post?: never;
        /** Not supported yet: removing a secret */
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    secret: string;
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/session": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Who is logged in, and what this server can do. */
        get: operations["get_session"];
        put?: never;
        /**
         * Logs in: keeps the token of this request in a cookie.
         * @description For browsers; everyone else sends the token with each request. While the cookie is there,
         *     requests without `Authorization` are judged by it; those that change something need the header
         *     `X-BuildFlow-Page` too.
         */
        post: operations["create_session"];
        /** Logs out: the browser forgets the cookie. The token stays valid. */
        delete: operations["delete_session"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/teams": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: listing teams */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/teams/{team}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: showing a team */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        /** Not supported yet: changing a team */
        put: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        post?: never;
        /** Not supported yet: removing a team */
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/tokens": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: listing tokens */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        /** Not supported yet: making tokens */
        post: {
            parameters: {
                query?: never;
                header?: {
                    /** @description The same key is the same request for a day */
                    "Idempotency-Key"?: string;
                };
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                409: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/tokens/{token}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /** Not supported yet: changing a token */
        put: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    token: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        post?: never;
        /** Not supported yet: revoking a token */
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    token: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/top": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: live usage by team and node */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/usage": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Not supported yet: usage */
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/webhooks/{forge}/{team}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Not supported yet: webhooks of forges */
        post: {
            parameters: {
                query?: never;
                header?: {
                    /** @description The same key is the same request for a day */
                    "Idempotency-Key"?: string;
                };
                path: {
                    forge: string;
                    team: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                400: components["responses"]["Refused"];
                401: components["responses"]["Refused"];
                403: components["responses"]["Refused"];
                404: components["responses"]["Refused"];
                409: components["responses"]["Refused"];
                412: components["responses"]["Refused"];
                415: components["responses"]["Refused"];
                429: components["responses"]["RefusedForNow"];
                /** @description Not supported yet by this release */
                501: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/problem+json": components["schemas"]["Problem"];
                    };
                };
                503: components["responses"]["RefusedForNow"];
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/healthz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Whether the process runs. */
        get: operations["healthz"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/metrics": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What is counted, as Prometheus text. */
        get: operations["metrics"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/readyz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Whether this server can do its work, and who leads. */
        get: operations["readyz"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description A try of a step. */
        AttemptDetail: {
            /**
             * Format: int32
             * @description Its ordinal, from 1.
             */
            attempt: number;
            /** @description True when it counts against `retry.max`; a drain does not. */
            counts: boolean;
            /** @description True when it has ended. */
            ended: boolean;
            /**
             * Format: int32
             * @description The script's exit code, when it ended by itself.
             */
            exit_code?: number | null;
            /**
             * Format: int64
             * @description Length of its whole log; null until it has ended, and when its tail was lost with its node.
             */
            log_bytes?: number | null;
            /** @description True when the rest of its log was lost with its node. */
            log_lost: boolean;
            /** @description The node's id. */
            node?: string | null;
            /** @description The node's host name, while the node is known. */
            node_name?: string | null;
            /**
             * @description How it ended, as in [`StepDetail::outcome`]; null until then, and for one that was taken
             *     from a drained node.
             */
            outcome?: string | null;
            /** @description One plain sentence: why it ended, or why there was another one. */
            reason?: string | null;
            /** @description When it did what. */
            times: components["schemas"]["Times"];
            use?: components["schemas"]["Usage"] | null;
        };
        /** @description Answer of `POST /runs/{run_id}/cancel`. */
        CancelAccepted: {
            /** @description One plain sentence. */
            message: string;
            /** @description The run. */
            run_id: string;
            /** @description Where it stands now: cancelling takes a moment. */
            status: components["schemas"]["RunStatus"];
        };
        /** @description Body of `POST /join-tokens`. */
        CreateJoinToken: {
            /**
             * Format: int64
             * @description How long it goes, seconds: 1 to 2592000, 3600 unless given.
             */
            expires_in_s?: number | null;
            /** @description Shown in lists; `join` unless given. */
            name?: string | null;
            /**
             * Format: int32
             * @description How many machines may join with it; any number unless given.
             */
            uses?: number | null;
        };
        /** @description Body of `POST /pipelines`. */
        CreatePipeline: {
            /** @description Path of the pipeline file inside the repository; `.buildflow.yml` when absent. */
            file?: string | null;
            /** @description Unique within the team; `[a-z0-9][a-z0-9._-]{0,62}`. */
            name: string;
            /** @description `file:///…`, an absolute path, `http(s)://…`, `ssh://…` or `user@host:path`. */
            repository: string;
            /** @description The team; `default` when absent. */
            team?: string | null;
        };
        /**
         * @description Body of `POST /pipelines/{team}/{pipeline}/runs`. At most one of `branch` and `tag`;
         *     `commit_sha` alone, or together with the branch or tag that it is built for. Nothing at all:
         *     the newest commit of the default branch.
         */
        CreateRun: {
            /** @description A branch's name, without `refs/heads/`. */
            branch?: string | null;
            /** @description A commit's id. */
            commit_sha?: string | null;
            /** @description Makes a new run even if the same was asked for within the last minute. */
            force?: boolean;
            /** @description Values for the `on.manual.inputs` of the pipeline file, by name: texts, numbers, booleans. */
            inputs?: Record<string, never> | null;
            /** @description A tag's name, without `refs/tags/`. */
            tag?: string | null;
            /** @description Extra environment of the run. */
            variables?: {
                [key: string]: string;
            };
        };
        /** @description Body of `POST /nodes/{node}/drain`. */
        DrainNode: {
            /**
             * @description How long its steps may go on, e.g. `45m`, `90s`, `2h`; what runs longer is placed elsewhere.
             *     Absent: every step ends by itself.
             */
            deadline?: string | null;
        };
        /** @description How far a drain is. */
        DrainProgress: {
            /**
             * Format: int64
             * @description When what still runs is placed elsewhere, milliseconds of the Unix epoch; null: never.
             */
            deadline_ms?: number | null;
            /** @description Steps that are still on it. */
            orders_left: number;
        };
        /**
         * @description What caused a run, as in [`model::Event`].
         * @enum {string}
         */
        Event: "push" | "tag" | "manual";
        /** @description What an expression of a pipeline file is. */
        ExplainedExpression: {
            /** @description From 1, in characters. */
            column: number;
            /** @description As it is written. */
            expression: string;
            /** @description The included file in which it stands; null: the file itself. */
            file?: string | null;
            /** @description The key that it stands in. */
            key: string;
            /** @description Whether it is known when the run is made. */
            known: boolean;
            /** @description From 1. */
            line: number;
            /** @description The step for which it was evaluated; null: it stands in a key of the file. */
            step?: string | null;
            /** @description Its value; when that is known only later, what is left of the expression. */
            value: string;
        };
        /** @description Something wrong in a pipeline file. */
        Finding: {
            /** @description From 1, in characters. */
            column: number;
            /** @description The included file that it is about; null: the file itself. */
            file?: string | null;
            /** @description How to mend it. */
            help?: string | null;
            /** @description From 1. */
            line: number;
            /** @description What is wrong. */
            message: string;
        };
        /** @description Answer of `GET /healthz`: the process runs. */
        Health: {
            /** @description Always `ok`. */
            status: string;
            /** @description The program's release. */
            version: string;
        };
        /** @description A join token, without its text. */
        JoinToken: {
            /**
             * Format: int64
             * @description When it was made, milliseconds of the Unix epoch.
             */
            created_ms: number;
            /**
             * Format: int64
             * @description When it ends, milliseconds of the Unix epoch.
             */
            expires_ms: number;
            /** @description Names it for `DELETE /join-tokens/{id}`. */
            id: string;
            /** @description As it was given. */
            name: string;
            /**
             * Format: int32
             * @description How many machines may still join with it; null: any number.
             */
            uses_left?: number | null;
        };
        /** @description Answer of `POST /join-tokens`. */
        JoinTokenCreated: components["schemas"]["JoinToken"] & {
            /** @description The text for `buildflow node join`. It is shown once. */
            token: string;
        };
        /** @description Answer of `GET /join-tokens`, oldest first. */
        JoinTokenList: {
            /** @description The tokens, without their texts. */
            join_tokens: components["schemas"]["JoinToken"][];
        };
        /** @description A log as JSON: lines, or what was found with `q`. */
        LogAnswer: components["schemas"]["LogLines"] | components["schemas"]["LogMatches"];
        /** @description A line that is shown in part. */
        LogCut: {
            /**
             * Format: int64
             * @description How many bytes it has in all.
             */
            bytes: number;
            /**
             * Format: int64
             * @description Its number.
             */
            line: number;
        };
        /** @description Some lines of a log. Bytes that are not UTF-8 are shown as `U+FFFD`. */
        LogLines: {
            /**
             * Format: int32
             * @description Of which attempt.
             */
            attempt: number;
            /** @description True when the step has ended and all of its log is there. */
            complete: boolean;
            /** @description Lines of which only the beginning is shown. */
            cut: components["schemas"]["LogCut"][];
            /**
             * Format: int64
             * @description The offset after the last line and its line feed.
             */
            end_offset: number;
            /** @description True when the last of them ends with a line feed. */
            ended: boolean;
            /**
             * Format: int64
             * @description The number of the first line, from 1.
             */
            line: number;
            /**
             * @description The lines without their line feeds. There may be fewer than were asked for; the next ones
             *     are asked for by number. The last line of a log may grow.
             */
            lines: string[];
            /** @description True when the rest of it was lost with its node. */
            lost: boolean;
            /**
             * Format: int64
             * @description The offset of its first byte.
             */
            offset: number;
            /** @description Where the output of each entry of `before`, `run` and `after` begins, as far as they have. */
            sections: components["schemas"]["LogSection"][];
            /**
             * Format: int64
             * @description How many bytes it has so far.
             */
            total_bytes: number;
            /**
             * Format: int64
             * @description How many lines the log has so far, an unfinished one included.
             */
            total_lines: number;
        };
        /** @description A line that was found. */
        LogMatch: {
            /**
             * Format: int64
             * @description Its number, from 1.
             */
            line: number;
            /**
             * Format: int64
             * @description The offset of its first byte.
             */
            offset: number;
            /** @description The line without escape sequences, or what stands around the first match in a long one. */
            text: string;
        };
        /** @description What was found in a log. */
        LogMatches: {
            /**
             * Format: int32
             * @description In the log of which attempt.
             */
            attempt: number;
            /**
             * Format: int64
             * @description How many lines were searched.
             */
            lines_searched: number;
            /** @description In order of lines. */
            matches: components["schemas"]["LogMatch"][];
            /**
             * Format: int64
             * @description Give it as `line` to search on; null when the log's end was reached.
             */
            next_line?: number | null;
            /**
             * Format: int64
             * @description How many lines the log has so far.
             */
            total_lines: number;
        };
        /** @description What one entry printed. */
        LogSection: {
            /**
             * Format: int64
             * @description The number of the line above its output.
             */
            line: number;
            /** @description True when the pipeline file names it. */
            named: boolean;
            /** @description The entry's name, or the beginning of its command. */
            title: string;
        };
        /** @description A registered node. */
        Node: {
            /** @description Allocations that stand. */
            allocations: number;
            /** @description What was asked of it and is not in force yet, e.g. `cordon`; oldest first. */
            asked: string[];
            /** @description What steps may take in all. */
            capacity: components["schemas"]["Resources"];
            /** @description True while a server holds its stream. */
            connected: boolean;
            /** @description Who cordoned or drained it. */
            cordoned_by?: string | null;
            /**
             * Format: int64
             * @description Since when it is cordoned.
             */
            cordoned_ms?: number | null;
            drain?: components["schemas"]["DrainProgress"] | null;
            /** @description Whether it takes steps. */
            eligibility: components["schemas"]["NodeEligibility"];
            /**
             * Format: int64
             * @description Grows with every registration.
             */
            epoch: number;
            /** @description What the agent found on the machine. */
            facts: components["schemas"]["NodeFacts"];
            /** @description What is left of it, by the allocations that stand. */
            free: components["schemas"]["Resources"];
            /** @description What a step's `labels` are matched against. */
            labels: {
                [key: string]: string;
            };
            /** @description Whether it may go on with what it has. */
            lease: components["schemas"]["NodeLease"];
            /** @description The host's name. */
            name: string;
            /** @description Its id. */
            node_id: string;
            /**
             * Format: int64
             * @description When it last registered.
             */
            registered_ms: number;
            /** @description The server that holds its stream, or held it last; null once its lease has run out. */
            server?: string | null;
            /**
             * Format: int32
             * @description Most allocations at once.
             */
            slots: number;
        };
        /** @description A step that has room on a node. */
        NodeAllocation: {
            /** @description The allocation. */
            alloc_id: string;
            /**
             * Format: int32
             * @description The ordinal of the try.
             */
            attempt: number;
            /**
             * Format: int64
             * @description When it was placed.
             */
            created_ms: number;
            /**
             * Format: int64
             * @description The run's number.
             */
            number?: number | null;
            /** @description The step's place in the pipeline file, from 0. */
            ordinal: number;
            /** @description The run's pipeline. */
            pipeline?: string | null;
            /** @description What is reserved for it. */
            resources: components["schemas"]["Resources"];
            /** @description The run. */
            run_id: string;
            status?: components["schemas"]["StepStatus"] | null;
            /** @description The step's name. */
            step?: string | null;
            /** @description True when it is to end early. */
            stopping: boolean;
            /** @description The run's team. */
            team?: string | null;
        };
        /** @description When a node's newest certificate ends. Its agent renews it after two thirds of its life. */
        NodeCertificate: {
            /**
             * Format: int64
             * @description Milliseconds of the Unix epoch.
             */
            ends_ms: number;
            /** @description The host's name when it joined. */
            name: string;
            /** @description The node. */
            node_id: string;
        };
        /** @description Answer of `GET /node-certificates`: when the certificates of nodes end, as far as it is known. */
        NodeCertificates: {
            /** @description Of these, those whose certificate has ended: they have to join again. */
            ended: number;
            /** @description Machines that have joined and were not removed. */
            members: number;
            /** @description Those that end first, at most 100, the first one first; also those that have ended. */
            nearest: components["schemas"]["NodeCertificate"][];
            /** @description Of these, those of whose certificate the end is not known before they renew it. */
            unknown: number;
        };
        /**
         * @description Answer of the routes that change a node: 200 when it is in force, 202 when the leader has yet
         *     to act.
         */
        NodeChange: {
            /** @description One plain sentence. */
            message: string;
            /** @description The node as it is now. */
            node: components["schemas"]["Node"];
        };
        /** @description A node and what runs on it. */
        NodeDetail: components["schemas"]["Node"] & {
            /** @description What stands on it, oldest first. */
            running: components["schemas"]["NodeAllocation"][];
        };
        /**
         * @description Whether a node takes steps.
         * @enum {string}
         */
        NodeEligibility: "eligible" | "cordoned" | "draining" | "gone";
        /** @description What an agent found on its machine. */
        NodeFacts: {
            /** @description The agent's release. */
            agent_version: string;
            /** @description Identifies the boot. */
            boot_id: string;
            /** @description `v1`, `hybrid` or `v2`. */
            cgroups: string;
            /** @description `uname -r`. */
            kernel: string;
        };
        /**
         * @description Whether a node may go on with what it has.
         * @enum {string}
         */
        NodeLease: "renewed" | "running_out" | "expired";
        /** @description All nodes, in order of names. */
        NodeList: {
            /** @description The nodes. */
            nodes: components["schemas"]["Node"][];
        };
        /** @description What the scheduler says of one node for one step. */
        NodeVerdict: {
            /** @description True when the step could run there. */
            feasible: boolean;
            /** @description The node's host name. */
            name: string;
            /** @description The node's id. */
            node: string;
            /** @description One plain sentence: what is missing, or why it fits. */
            reason: string;
            /**
             * Format: int64
             * @description The greater the better; null when it is not feasible.
             */
            score?: number | null;
        };
        /** @description One part of a step's way to its first instruction. */
        Phase: {
            /**
             * Format: int64
             * @description How many bytes were fetched for it.
             */
            bytes: number;
            /**
             * Format: int64
             * @description How long it took.
             */
            ms: number;
            /** @description What was done, e.g. `image`, `checkout`, `launch`. */
            name: string;
        };
        /** @description A registered pipeline. */
        Pipeline: {
            /**
             * Format: int64
             * @description When it was registered.
             */
            created_ms: number;
            /** @description Path of the pipeline file inside the repository. */
            file: string;
            last_run?: components["schemas"]["RunSummary"] | null;
            /** @description Unique within the team. */
            name: string;
            /** @description Where the sources are. */
            repository: string;
            /** @description The tenant. */
            team: string;
        };
        /** @description A page of pipelines, in order of team and name. */
        PipelineList: {
            /** @description Give it as `cursor` for the next page; null at the end. */
            next_cursor?: string | null;
            /** @description The page. */
            pipelines: components["schemas"]["Pipeline"][];
        };
        /** @description Answer of `POST /pipelines/validate`. */
        PipelineValidated: {
            /** @description What each expression is, if that was asked for. */
            explained?: components["schemas"]["ExplainedExpression"][];
            /** @description All that is wrong, in order of lines. */
            findings: components["schemas"]["Finding"][];
            /** @description What else should be known, one sentence each. */
            notes?: string[];
            plan?: components["schemas"]["Plan"] | null;
            /** @description True when there are no findings. */
            valid: boolean;
            /** @description Why the event makes no run of the file; null when it makes one. */
            without_run?: string | null;
        };
        /** @description What a pipeline file would run. */
        Plan: {
            /** @description The file's `name`. */
            name?: string | null;
            /** @description In order. */
            stages: components["schemas"]["PlanStage"][];
        };
        /** @description A stage of a [`Plan`]. */
        PlanStage: {
            /** @description Its name. */
            name: string;
            /** @description Its steps. */
            steps: components["schemas"]["PlanStep"][];
        };
        /** @description A step of a [`Plan`]. */
        PlanStep: {
            /** @description What is asked when its needs have ended; null: whether they have ended well. */
            condition?: string | null;
            /** @description The image. */
            image: string;
            /** @description It waits for a person to start it. */
            manual?: boolean;
            /** @description Its name. */
            name: string;
            /** @description The names of the steps that it waits for. */
            needs: string[];
            /** @description Keys whose value depends on the event, with what is written there. */
            open?: {
                [key: string]: string;
            };
            /** @description What is reserved for it. */
            resources: components["schemas"]["Resources"];
            /** @description Why it will be skipped, when that is certain. */
            skipped?: string | null;
            /**
             * Format: int64
             * @description From its first instruction to the kill.
             */
            timeout_ms: number;
        };
        /** @description Every error: RFC 9457 `application/problem+json`. */
        Problem: {
            /** @description What was wrong with this request, and how to mend it. */
            detail?: string | null;
            /** @description Where exactly, when the fault lies in parts of the request. */
            errors?: components["schemas"]["ProblemPlace"][];
            /** @description The path that was asked for. */
            instance?: string | null;
            /** @description As in the header `X-Request-Id`: quote it when asking for help. */
            request_id?: string | null;
            /**
             * Format: int32
             * @description The HTTP status.
             */
            status: number;
            /** @description What kind of problem it is, in a few words. */
            title: string;
            /** @description `urn:buildflow:problem:<word>`; the word is stable and made for programs. */
            type: string;
        };
        /** @description One faulty part of a request. */
        ProblemPlace: {
            /** @description Column of the body, from 1. */
            column?: number | null;
            /** @description The field, e.g. `variables.A B`, or the parameter. */
            field?: string | null;
            /** @description Line of the body, from 1. */
            line?: number | null;
            /** @description What is wrong and how to mend it. */
            message: string;
        };
        /** @description What became of a push event. */
        PushAccepted: {
            /** @description One plain sentence. */
            message: string;
            /** @description One for each pipeline of the repository whose file means the event. */
            runs: components["schemas"]["PushedRun"][];
            /** @description The pipelines, as `team/pipeline`, whose file makes no run of the event. */
            without_run?: string[];
        };
        /** @description One run of a push event. */
        PushedRun: components["schemas"]["RunCreated"] & {
            /** @description The pipeline. */
            pipeline: string;
            /** @description The pipeline's team. */
            team: string;
        };
        /** @description Body of `POST /events/push`: what a `post-receive` hook is given. */
        PushEvent: {
            /**
             * @description The full id of the commit that the ref was at before; all zeros when the ref is new. Without it
             *     `paths`, `changes` and `changed()` do not know what changed, and take everything for changed.
             */
            before?: string | null;
            /** @description The full id of the ref's new commit; all zeros when the ref was deleted. */
            commit: string;
            /** @description The full ref, e.g. `refs/heads/main`. */
            ref: string;
            /**
             * @description The repository's address, as the pipeline names it; a path and its `file://` form are the
             *     same, so are addresses with and without a trailing `/` or `.git`.
             */
            repository: string;
        };
        /** @description Body of `PUT /pipelines/{team}/{pipeline}`. */
        PutPipeline: {
            /** @description As in [`CreatePipeline`]. */
            file?: string | null;
            /** @description As in [`CreatePipeline`]. */
            repository: string;
        };
        /** @description Answer of `GET /readyz`: whether this server can do its work. */
        Readiness: {
            /** @description True when blobs can be read. Without them builds go on and logs wait on the nodes. */
            blobs: boolean;
            /** @description True when finished runs can be searched. Without history builds go on and archiving waits. */
            history: boolean;
            /** @description The server that leads; null while nobody does. */
            leader?: string | null;
            /** @description True when this server leads. */
            leads: boolean;
            /** @description What is not well, in plain sentences. */
            problems: string[];
            /** @description True when the store has not answered for so long that nothing can be written. */
            quorum_lost: boolean;
            /** @description True when everything below is well. */
            ready: boolean;
            /** @description This server's name. */
            server: string;
            /** @description True when the store has just answered. */
            store: boolean;
            /** @description True when the picture of the store's state is complete and follows it. */
            view: boolean;
        };
        /** @description An amount of each resource. */
        Resources: {
            /**
             * Format: int64
             * @description Thousandths of a core.
             */
            cpu_millis: number;
            /**
             * Format: int64
             * @description Bytes of the writable layer.
             */
            disk_bytes: number;
            /**
             * Format: int64
             * @description Bytes of memory.
             */
            memory_bytes: number;
        };
        /** @description Data of the SSE events `run` (the run's status changed) and `end` (nothing follows). */
        RunChanged: {
            /** @description The run. */
            run_id: string;
            /** @description Where it stands now. */
            status: components["schemas"]["RunStatus"];
        };
        /** @description A run that a request has led to: 201 when it was made by it, 200 when it was there already. */
        RunCreated: {
            /** @description True when this request made it. */
            created: boolean;
            /**
             * Format: int64
             * @description Counts the pipeline's runs from 1; null for the moment until its file has been read (202).
             */
            number?: number | null;
            /** @description The run. */
            run_id: string;
            /** @description Where it stands. */
            status: components["schemas"]["RunStatus"];
            /** @description Its page. */
            web_url: string;
        };
        /** @description A run with all its steps. */
        RunDetail: components["schemas"]["RunSummary"] & {
            /**
             * Format: int32
             * @description A person's retry makes it 2.
             */
            attempt: number;
            /** @description True when somebody asked to cancel it. */
            cancel_requested: boolean;
            /** @description One line for each finding in the pipeline file: `line:column: what, and how to mend it`. */
            findings: string[];
            /** @description The repository's address. */
            repository: string;
            /** @description The request that caused it. */
            request_id: string;
            /** @description In order. */
            stages: components["schemas"]["StageDetail"][];
            /** @description The pipeline file's `title`. */
            title?: string | null;
            /** @description Extra environment of the run. */
            variables: {
                [key: string]: string;
            };
        };
        /** @description A page of runs, newest first. */
        RunList: {
            /** @description Give it as `cursor` for the next page; null at the end. */
            next_cursor?: string | null;
            /** @description The page. It may be shorter than `limit` although more follow. */
            runs: components["schemas"]["RunSummary"][];
            /**
             * @description Set when the list is not whole: finished runs of some seconds ago and older are missing
             *     while their database does not answer.
             */
            warning?: string | null;
        };
        /**
         * @description Where a run stands, as in [`model::RunStatus`].
         * @enum {string}
         */
        RunStatus: "queued" | "running" | "success" | "failed" | "cancelled" | "timed_out";
        /** @description A run in a list. */
        RunSummary: {
            /** @description The commit's author. */
            author: string;
            /** @description The branch, when the ref is one. */
            branch?: string | null;
            /** @description The full commit id; empty when it could not be resolved. */
            commit: string;
            /**
             * Format: int64
             * @description When its trigger was accepted.
             */
            created_ms: number;
            /**
             * Format: int64
             * @description End of its last step, once the run has ended.
             */
            ended_ms?: number | null;
            /** @description Why it never got steps. */
            error?: string | null;
            /** @description What caused it. */
            event: components["schemas"]["Event"];
            /** @description First line of the commit's message. */
            message: string;
            /**
             * Format: int64
             * @description Counts the pipeline's runs from 1; null for the moment until its file has been read.
             */
            number?: number | null;
            /** @description The pipeline. */
            pipeline: string;
            /** @description The full ref. */
            ref: string;
            /** @description The token that asked for it. */
            requested_by: string;
            /** @description The run. */
            run_id: string;
            /**
             * Format: int64
             * @description First instruction of its first step.
             */
            started_ms?: number | null;
            /** @description Where it stands. */
            status: components["schemas"]["RunStatus"];
            /** @description How many steps it has. */
            steps: number;
            /** @description The tag, when the ref is one. */
            tag?: string | null;
            /** @description The tenant. */
            team: string;
            /** @description Its page. */
            web_url: string;
        };
        /** @description Answer of `GET` and `POST /session`: who is logged in, and what this server can do. */
        Session: {
            /** @description The token's name. */
            name: string;
            /** @description What this release does not support yet, as `METHOD /path` below `/api/v1`. */
            not_yet: string[];
            /** @description What the token allows. */
            role: string;
            /** @description This server's name. */
            server: string;
            /** @description The program's release. */
            version: string;
        };
        /** @description A stage of a run. */
        StageDetail: {
            /** @description Its name. */
            name: string;
            /** @description Its steps, in the order of the file. */
            steps: components["schemas"]["StepDetail"][];
        };
        /** @description Answer of `POST …/steps/{step}/start`. */
        StartAccepted: {
            /** @description One plain sentence. */
            message: string;
            /** @description The run. */
            run_id: string;
            /** @description The step. */
            step: string;
        };
        /** @description Data of the SSE event `step`: a step changed. */
        StepChanged: {
            /**
             * Format: int32
             * @description The ordinal of the newest try.
             */
            attempt: number;
            /**
             * Format: int64
             * @description Length of its whole log, once it has ended.
             */
            log_bytes?: number | null;
            /** @description The node's id. */
            node?: string | null;
            /** @description The step's place in the pipeline file, from 0. */
            ordinal: number;
            /** @description One plain sentence: why. */
            reason?: string | null;
            /** @description The run. */
            run_id: string;
            /** @description Where it stands now. */
            status: components["schemas"]["StepStatus"];
            /** @description The step's name. */
            step: string;
        };
        /** @description A step of a run. */
        StepDetail: {
            /** @description A failure of it does not fail the run. */
            allow_failure: boolean;
            /**
             * Format: int32
             * @description The ordinal of the newest try, from 1; 0 before the first.
             */
            attempt: number;
            /** @description Every try, oldest first, the newest among them; of very many the oldest are left out. */
            attempts: components["schemas"]["AttemptDetail"][];
            /**
             * Format: int32
             * @description The script's exit code, when it ended by itself.
             */
            exit_code?: number | null;
            /** @description The image. */
            image: string;
            /**
             * Format: int64
             * @description Length of its whole log; null until it has ended.
             */
            log_bytes?: number | null;
            /** @description It starts only when a person says so: `POST …/steps/{step}/start`. */
            manual?: boolean;
            /** @description Its name, unique within the run. */
            name: string;
            /** @description The names of the steps that it waits for. */
            needs: string[];
            /** @description The node's id. */
            node?: string | null;
            /** @description The node's host name, while the node is known. */
            node_name?: string | null;
            /** @description Its place in the pipeline file, from 0. */
            ordinal: number;
            /**
             * @description How it ended: `exited`, `signaled`, `out_of_memory`, `timed_out`, `cancelled`,
             *     `command_missing`, `start_failed`, `lost`, `output_refused`.
             */
            outcome?: string | null;
            /** @description What it wrote into `$BUILDFLOW_OUTPUT`, by key. */
            outputs?: {
                [key: string]: string;
            };
            /** @description Where the time before its first instruction went, in order. */
            phases: components["schemas"]["Phase"][];
            /** @description One plain sentence: why it is in this status. */
            reason?: string | null;
            /** @description What is reserved for it and enforced as limits. */
            resources: components["schemas"]["Resources"];
            /**
             * Format: int64
             * @description Not to be placed again before this time: the pause before a retry.
             */
            retry_at_ms?: number | null;
            /** @description Where it stands. */
            status: components["schemas"]["StepStatus"];
            /** @description What it wrote into `$BUILDFLOW_SUMMARY`: Markdown, not to be trusted as HTML. */
            summary?: string | null;
            /**
             * Format: int64
             * @description From its first instruction to the kill.
             */
            timeout_ms: number;
            /** @description When it did what. */
            times: components["schemas"]["Times"];
            /** @description Free text for people. */
            title?: string | null;
            use?: components["schemas"]["Usage"] | null;
        };
        /** @description Answer of `GET /runs/{run_id}/steps/{step}/explain`. */
        StepExplained: {
            /** @description The labels that it asks for. */
            labels: {
                [key: string]: string;
            };
            /** @description What the scheduler holds against, or for, each node; empty once it is placed. */
            nodes: components["schemas"]["NodeVerdict"][];
            /** @description Why it was placed where it was, in the scheduler's words. */
            placement?: string | null;
            /** @description What it asks for. */
            resources: components["schemas"]["Resources"];
            /** @description The run. */
            run_id: string;
            /** @description Where it stands. */
            status: components["schemas"]["StepStatus"];
            /** @description The step's name. */
            step: string;
            /** @description One plain sentence: why here, or why not yet. */
            summary: string;
            /** @description Needed steps that have not ended. */
            waits_for: string[];
        };
        /**
         * @description Where a step stands, as in [`model::StepStatus`].
         * @enum {string}
         */
        StepStatus: "pending" | "queued" | "assigned" | "running" | "success" | "failed" | "cancelled" | "timed_out" | "skipped";
        /** @description When a step did what. */
        Times: {
            /**
             * Format: int64
             * @description It got its node.
             */
            assigned_ms?: number | null;
            /**
             * Format: int64
             * @description Its container was gone, by the node's clock.
             */
            ended_ms?: number | null;
            /**
             * Format: int64
             * @description Its needs were satisfied.
             */
            queued_ms?: number | null;
            /**
             * Format: int64
             * @description The first instruction of its process, by the node's clock.
             */
            started_ms?: number | null;
        };
        /** @description What a step used, as the kernel counted it. */
        Usage: {
            /**
             * Format: int64
             * @description CPU time.
             */
            cpu_ms: number;
            /**
             * Format: int64
             * @description Highest memory.
             */
            memory_peak_bytes: number;
            /**
             * Format: int64
             * @description Time in which the CPU limit held it back.
             */
            throttled_ms: number;
        };
        /** @description An event for which a pipeline file is checked. */
        ValidateEvent: {
            /**
             * @description The author of the commit.
             * @default
             */
            author: string;
            /**
             * @description The branch that a pull request wants to go into.
             * @default
             */
            base: string;
            /**
             * @description The branch; for `tag` the tag.
             * @default
             */
            branch: string;
            /**
             * @description The files that changed; null: that is not known.
             * @default null
             */
            changed: string[] | null;
            /**
             * @description The commit.
             * @default
             */
            commit: string;
            /**
             * @description The default branch of the repository; `main` when empty.
             * @default
             */
            default_branch: string;
            /**
             * @description `push`, `tag`, `manual`, `pull_request`, `merge_group`, `schedule` or `pipeline`.
             * @default
             */
            event: string;
            /** @description What a person entered. */
            inputs?: Record<string, never>;
            /**
             * @description First line of the commit's message.
             * @default
             */
            message: string;
            /**
             * @description Extra environment of the run.
             * @default {}
             */
            variables: {
                [key: string]: string;
            };
        };
        /** @description JSON body of `POST /pipelines/validate`; the file itself as `application/yaml` or `text/plain` does as well. */
        ValidatePipeline: {
            event?: components["schemas"]["ValidateEvent"] | null;
            /** @description Whether to say what each expression is. */
            explain?: boolean;
            /**
             * @description Files of the same repository that it includes, by path. Files of other repositories cannot be
             *     checked here.
             */
            files?: {
                [key: string]: string;
            };
            /** @description The pipeline file's text. */
            text: string;
        };
    };
    responses: {
        /** @description Refused: `detail` says why, and how to mend it */
        Refused: {
            headers: {
                /** @description Names the request in the server's log */
                "X-Request-Id"?: string;
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description Refused for now */
        RefusedForNow: {
            headers: {
                /** @description When to ask again, seconds */
                "Retry-After"?: string;
                /** @description Names the request in the server's log */
                "X-Request-Id"?: string;
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description It is as the caller has it */
        Unchanged: {
            headers: {
                /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                ETag?: string;
                [name: string]: unknown;
            };
            content?: never;
        };
    };
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    push_event: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key leads to the same runs for a day */
                "Idempotency-Key"?: string | null;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PushEvent"];
            };
        };
        responses: {
            /** @description The runs were there already, or the event starts nothing */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PushAccepted"];
                };
            };
            /** @description Runs were made */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PushAccepted"];
                };
            };
            /** @description Accepted; pipeline files are still being fetched */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PushAccepted"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            /** @description No pipeline builds this repository */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            409: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            413: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    list_join_tokens: {
        parameters: {
            query?: never;
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["JoinTokenList"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    create_join_token: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key is the same request for a day */
                "Idempotency-Key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateJoinToken"];
            };
        };
        responses: {
            /** @description Created */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["JoinTokenCreated"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            409: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            413: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    delete_join_token: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description The token's id, as the list shows it */
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description No Content */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    list_node_certificates: {
        parameters: {
            query?: never;
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeCertificates"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    list_nodes: {
        parameters: {
            query?: never;
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeList"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    get_node: {
        parameters: {
            query?: never;
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path: {
                /** @description The node's id, or its host name if only one node has it */
                node: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeDetail"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    delete_node: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description The node's id, or its host name if only one node has it */
                node: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description No Content */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            409: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    confirm_node_gone: {
        parameters: {
            query?: never;
            header?: {
                "Idempotency-Key"?: string | null;
            };
            path: {
                /** @description The node's id, or its host name if only one node has it */
                node: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is in force */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeChange"];
                };
            };
            /** @description The leader has yet to act */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeChange"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            /** @description Its agent is connected */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            412: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    cordon_node: {
        parameters: {
            query?: never;
            header?: {
                "Idempotency-Key"?: string | null;
            };
            path: {
                /** @description The node's id, or its host name if only one node has it */
                node: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is in force */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeChange"];
                };
            };
            /** @description The leader has yet to act */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeChange"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            409: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    drain_node: {
        parameters: {
            query?: never;
            header?: {
                "Idempotency-Key"?: string | null;
            };
            path: {
                /** @description The node's id, or its host name if only one node has it */
                node: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["DrainNode"];
            };
        };
        responses: {
            /** @description It is in force */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeChange"];
                };
            };
            /** @description The leader has yet to act */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeChange"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            409: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            413: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    uncordon_node: {
        parameters: {
            query?: never;
            header?: {
                "Idempotency-Key"?: string | null;
            };
            path: {
                /** @description The node's id, or its host name if only one node has it */
                node: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is in force */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeChange"];
                };
            };
            /** @description The leader has yet to act */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NodeChange"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            409: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    openapi: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": Record<string, never>;
                };
            };
        };
    };
    list_pipelines: {
        parameters: {
            query?: {
                /** @description `next_cursor` of the page before */
                cursor?: string;
                /** @description 1 to 500, 50 unless given */
                limit?: number;
                /** @description Only pipelines of this team */
                team?: string;
            };
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PipelineList"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    create_pipeline: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key is the same request for a day */
                "Idempotency-Key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreatePipeline"];
            };
        };
        responses: {
            /** @description Made by the same request before, under the same Idempotency-Key */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Pipeline"];
                };
            };
            /** @description Created */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Pipeline"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            409: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            413: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    get_pipeline: {
        parameters: {
            query?: never;
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path: {
                pipeline: string;
                team: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Pipeline"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    put_pipeline: {
        parameters: {
            query?: never;
            header?: {
                /** @description Only if it is as it was with this `ETag`; `*`: only if it is there */
                "If-Match"?: string | null;
                /** @description `*`: only if it is not there */
                "If-None-Match"?: string | null;
            };
            path: {
                pipeline: string;
                team: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PutPipeline"];
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Pipeline"];
                };
            };
            /** @description Created */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Pipeline"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            /** @description Somebody else changed it at the same moment */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description It is not as `If-Match` or `If-None-Match` says */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            413: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    delete_pipeline: {
        parameters: {
            query?: never;
            header?: {
                /** @description Only if it is as it was with this `ETag` */
                "If-Match"?: string | null;
            };
            path: {
                pipeline: string;
                team: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description No Content */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            /** @description Somebody else changed it at the same moment */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description It is not as `If-Match` says */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    list_pipeline_runs: {
        parameters: {
            query?: {
                /** @description Only runs of this branch */
                branch?: string;
                /** @description Only runs of this commit, the full id */
                commit?: string;
                /** @description `next_cursor` of the page before */
                cursor?: string;
                /** @description 1 to 500, 50 unless given */
                limit?: number;
                /** @description Only runs whose author's name, or the name of the token that asked for them, holds this text */
                person?: string;
                /** @description Only runs triggered at this time or later, ms of the Unix epoch */
                since?: number;
                /** @description Only runs in this status */
                status?: string;
                /** @description Only runs triggered before this time, ms of the Unix epoch */
                until?: number;
            };
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path: {
                pipeline: string;
                team: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunList"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    create_run: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key leads to the same run for a day */
                "Idempotency-Key"?: string | null;
            };
            path: {
                pipeline: string;
                team: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateRun"];
            };
        };
        responses: {
            /** @description Made by the same request before */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunCreated"];
                };
            };
            /** @description Made by this request */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunCreated"];
                };
            };
            /** @description Accepted; its pipeline file is still being fetched */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunCreated"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            409: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            413: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    get_pipeline_run: {
        parameters: {
            query?: never;
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path: {
                pipeline: string;
                /** @description The run's id or number */
                run_id: string;
                team: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunDetail"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    validate_pipeline: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key is the same request for a day */
                "Idempotency-Key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ValidatePipeline"];
                "application/yaml": string;
                "text/plain": string;
            };
        };
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PipelineValidated"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            409: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            413: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    list_runs: {
        parameters: {
            query?: {
                /** @description Only runs of this branch */
                branch?: string;
                /** @description Only runs of this commit, the full id */
                commit?: string;
                /** @description `next_cursor` of the page before */
                cursor?: string;
                /** @description 1 to 500, 50 unless given */
                limit?: number;
                /** @description Only runs whose author's name, or the name of the token that asked for them, holds this text */
                person?: string;
                /** @description Only runs triggered at this time or later, ms of the Unix epoch */
                since?: number;
                /** @description Only runs in this status */
                status?: string;
                /** @description Only runs triggered before this time, ms of the Unix epoch */
                until?: number;
            };
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunList"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    get_run: {
        parameters: {
            query?: never;
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path: {
                run_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RunDetail"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    cancel_run: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key is the same request for a day */
                "Idempotency-Key"?: string;
            };
            path: {
                run_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It was cancelled already */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CancelAccepted"];
                };
            };
            /** @description It is being cancelled */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CancelAccepted"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            /** @description It has ended */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            412: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    run_events: {
        parameters: {
            query?: never;
            header?: {
                /** @description Go on after this event */
                "Last-Event-ID"?: string | null;
            };
            path: {
                run_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description `snapshot` (RunDetail), `step` (StepChanged), `run` and `end` (RunChanged) */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": string;
                };
            };
            /** @description The run has ended and the reader has seen it: do not come back */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    explain_step: {
        parameters: {
            query?: never;
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path: {
                run_id: string;
                /** @description The step's name */
                step: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["StepExplained"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    start_step: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key is the same request for a day */
                "Idempotency-Key"?: string;
            };
            path: {
                run_id: string;
                /** @description The step's name */
                step: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The step is being started */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["StartAccepted"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            404: components["responses"]["Refused"];
            /** @description The step does not wait for a person */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            412: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    run_logs: {
        parameters: {
            query?: {
                /** @description Go on until the run has ended. */
                follow?: boolean;
            };
            header?: {
                /** @description Resumes a stream of events. */
                "Last-Event-ID"?: string | null;
            };
            path: {
                /** @description The run's id. */
                run: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The logs. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": string;
                    "text/plain": string;
                };
            };
            /** @description A parameter is wrong or not supported yet. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            /** @description No such run. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description They were kept long enough and are removed. */
            410: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    step_logs: {
        parameters: {
            query?: {
                /** @description This attempt alone, from 1; if absent the newest, and with `follow` those after it. */
                attempt?: number;
                /** @description The most lines, or matches. */
                count?: number;
                /** @description Go on until the step has ended. */
                follow?: boolean;
                /** @description The first line, from 1. */
                line?: number;
                /** @description The first byte. */
                offset?: number;
                /** @description Only lines that hold this text. */
                q?: string;
            };
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
                /** @description Resumes a stream of events. */
                "Last-Event-ID"?: string | null;
            };
            path: {
                /** @description The run's id. */
                run: string;
                /** @description The step's name. */
                step: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The log. */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["LogAnswer"];
                    "text/event-stream": string;
                    "text/plain": string;
                };
            };
            304: components["responses"]["Unchanged"];
            /** @description A parameter is wrong. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            /** @description No such run, step or attempt. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            /** @description It was kept long enough and is removed. */
            410: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            415: components["responses"]["Refused"];
            /** @description The log ends before `offset` or `line`. */
            416: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    get_session: {
        parameters: {
            query?: never;
            header?: {
                /** @description An `ETag`: 304 if nothing has changed */
                "If-None-Match"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Session"];
                };
            };
            304: components["responses"]["Unchanged"];
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    create_session: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key is the same request for a day */
                "Idempotency-Key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Session"];
                };
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            409: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    delete_session: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description No Content */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Refused"];
            401: components["responses"]["Refused"];
            403: components["responses"]["Refused"];
            412: components["responses"]["Refused"];
            415: components["responses"]["Refused"];
            429: components["responses"]["RefusedForNow"];
            503: components["responses"]["RefusedForNow"];
        };
    };
    healthz: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Health"];
                };
            };
        };
    };
    metrics: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                };
            };
        };
    };
    readyz: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OK */
            200: {
                headers: {
                    /** @description For `If-None-Match`, and for `If-Match` where the route knows it */
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Readiness"];
                };
            };
            /** @description Service Unavailable */
            503: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Readiness"];
                };
            };
        };
    };
}
