#!/usr/bin/env bash
# Builds the image and runs the compose files with Podman, where there is no Docker daemon and no image registry.
# Images made of Debian packages stand in for the base images, under their names.
#
#   apt-get install podman buildah runc catatonit conmon netavark aardvark-dns iptables debootstrap docker-compose curl
#   deploy/compose/test.sh          as root on Debian; the ports 8000 and 9090 are free; a few minutes, 4 GB in build/
#
# It does not prove: the real base images (their libc, users and paths), the wheels of torch's own CPU index (the
# configured index is used), the CUDA image, a GPU, Grafana (no package to stand in), Docker itself or Compose 2.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly WORK=$PWD/build/test-compose
readonly SERVICE=http://127.0.0.1:8000
readonly PROMETHEUS=http://127.0.0.1:9090
readonly REQUESTS=24
export COMPOSE_PROJECT_NAME=agentprmtest

step() { printf '\n== %s\n' "$*"; }
ok() { printf 'ok: %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" && exit 1; }

until_true() { # what, command...: waits until the command succeeds, at most two minutes plus its last run
    local what=$1
    shift
    for _ in $(seq 240); do
        if "$@" >/dev/null 2>&1; then ok "$what" && return; fi
        sleep 0.5
    done
    fail "$what"
}

# Starts a Podman service whose images, containers and settings lie in build/.
configure() {
    mkdir -p "$WORK"
    cat >"$WORK/containers.conf" <<-'END'
		[containers]
		default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
		[engine]
		runtime = "runc"
		cgroup_manager = "cgroupfs"
	END
    cat >"$WORK/storage.conf" <<-END
		[storage]
		driver = "overlay"
		graphroot = "$WORK/storage"
		runroot = "$WORK/run"
	END
    export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf
    export DOCKER_HOST=unix://$WORK/podman.sock
    rm -f "$WORK/podman.sock"
    podman system service --time=0 "$DOCKER_HOST" 2>"$WORK/podman.log" &
    podman_service=$!
    trap clean EXIT
    until_true "Podman listens" test -S "$WORK/podman.sock"
}

clean() {
    kill "${health_loop:-$podman_service}" 2>/dev/null || true
    docker-compose down --volumes --remove-orphans >/dev/null 2>&1 || true
    kill "$podman_service" 2>/dev/null || true
}

build() { # arguments of buildah; pip inside gets this machine's configuration and certificates
    local -a mounts=(-v /etc/ssl/certs:/etc/ssl/certs:ro)
    { echo '[global]' && env | sed -n 's/^PIP_FIND_LINKS=/find-links = /p'; } >"$WORK/pip.conf"
    [[ -f /etc/pip.conf ]] && grep -v '^\[global\]' /etc/pip.conf >>"$WORK/pip.conf"
    mounts+=(-v "$WORK/pip.conf:/etc/pip.conf:ro")
    [[ -d ${PIP_FIND_LINKS:-} ]] && mounts+=(-v "$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro")
    buildah bud --format docker --isolation chroot --network host --pull=never --layers "${mounts[@]}" "$@" \
        >>"$WORK/build.log" 2>&1 || { tail -n 20 "$WORK/build.log" && fail "build"; }
}

image_of() { grep -ohE "(image: |PYTHON_IMAGE=)\S*\b$1:\S+" docker/Dockerfile docker-compose.yml deploy/compose/*.yml | sed 's/.*[ =]//' | head -n 1; }

stand_in() { # image, Debian packages, further lines of its Dockerfile
    printf 'FROM debian:stand-in\nRUN apt-get update -qq && apt-get install -yqq --no-install-recommends %s\n%b\n' "$2" "$3" |
        build --tag "docker.io/$1" -
    ok "$1 from Debian's $2"
}

build_stand_ins() {
    local mirror
    # shellcheck disable=SC2016  # apt's own placeholder
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' | head -n 1)
    if ! podman image exists debian:stand-in; then
        rm -rf "$WORK/rootfs"
        debootstrap --variant=minbase --include=ca-certificates bookworm "$WORK/rootfs" "$mirror" >"$WORK/debootstrap.log"
        tar -C "$WORK/rootfs" -c . | podman import --quiet - docker.io/library/debian:stand-in >/dev/null
        rm -rf "$WORK/rootfs"
    fi
    stand_in "library/$(image_of python)" "python3 python3-venv python3-pip" 'RUN ln -s python3 /usr/bin/python'
    stand_in "library/$(image_of redis)" "redis-server" 'WORKDIR /data'
    stand_in "library/$(image_of haproxy)" "haproxy" \
        'USER 99\nSTOPSIGNAL SIGUSR1\nCMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]'
    stand_in "$(image_of prom/prometheus)" "prometheus" \
        'RUN mkdir /prometheus && chown 65534:65534 /prometheus\nUSER 65534\nENTRYPOINT ["/usr/bin/prometheus"]'
}

# Podman without systemd runs no health check by itself, and Compose waits for them.
check_health() {
    while true; do
        for container in $(podman ps --quiet); do podman healthcheck run "$container" >/dev/null 2>&1 || true; done
        sleep 1
    done
}

container() { podman ps --quiet --filter "label=com.docker.compose.service=$1" | head -n 1; }
metric() { curl -fsS --max-time 60 "$SERVICE/metrics" | awk -v name="$1" '$1 ~ "^" name { sum += $2 } END { print sum + 0 }'; }
queries_to() { curl -fsS --max-time 60 --get "$PROMETHEUS/api/v1/query" --data-urlencode "query=$1" | grep -qF "\"$2\"]"; }
over() { awk -v is="$1" -v least="$2" 'BEGIN { exit !(is > least) }'; }

bodies() { # writes requests of long trajectories that share nothing, in words that the bundled checkpoint knows
    python3 - "$WORK" "$REQUESTS" <<-'END'
		import json, pathlib, random, sys
		vocabulary = json.loads(pathlib.Path("model_store/checkpoints/textcraft-demo/1/tokenizer.json").read_text())["model"]["vocab"]
		words, draw = sorted(word for word in vocabulary if len(word) > 3 and word.isascii()), random.Random(0)
		steps = lambda: [{"observation": draw.choice(words), "action": f"get 1 {draw.choice(words)}"} for _ in range(40)]
		for number in range(int(sys.argv[2])):
		    items = [{"task": f"Goal: craft {draw.choice(words)}.", "steps": steps()} for _ in range(40)]
		    pathlib.Path(sys.argv[1], f"body-{number}.json").write_text(json.dumps({"items": items}))
	END
}

post() { curl -sS --max-time 300 -o "$WORK/reply.json" -w '%{http_code}\n' -H 'content-type: application/json' "${@:3}" -d "@$2" "$SERVICE/$1"; }

run_stack() {
    # Small batches and a long queue give the drain something to do.
    cat >"$WORK/slow.yml" <<-'END'
		services:
		  agentprm:
		    environment: {AGENTPRM_MAX_BATCH_TOKENS: "64", AGENTPRM_MAX_QUEUE_TOKENS: "10000000", AGENTPRM_PREFIX_CACHE_BYTES: "0"}
	END
    docker-compose -f docker-compose.yml -f "$WORK/slow.yml" --project-directory . up -d --no-build agentprm redis prometheus \
        >"$WORK/up.log" 2>&1 || { cat "$WORK/up.log" && fail "up"; }
    ok "up: the service started after Redis was healthy, Prometheus after the service was"
    until_true "Prometheus is healthy" curl -fsS --max-time 60 "$PROMETHEUS/-/healthy"
    bodies
    [[ $(post score_step "$WORK/body-0.json") == 200 ]] || fail "score_step: $(head -c 300 "$WORK/reply.json")"
    ok "/score_step through the published port: 200, $(head -c 118 "$WORK/reply.json")..."
    until_true "Redis holds the scores" over_scores
    until_true "Prometheus has the target up" queries_to 'up{job="agentprm"}' 1
    until_true "Prometheus has loaded the rules" rules_are_loaded
}

over_scores() { over "$(podman exec "$(container redis)" redis-cli dbsize)" 39; }
rules_are_loaded() { curl -fsS --max-time 60 "$PROMETHEUS/api/v1/rules" | grep -q '"health":"ok"'; }

check_hardening() {
    local id
    id=$(container agentprm)
    [[ $(podman exec "$id" id -u) == 10001 ]] || fail "user"
    ok "runs as 10001"
    if podman exec "$id" touch /app/x 2>/dev/null; then fail "the root file system can be written"; fi
    podman exec "$id" touch /tmp/x /models/x || fail "/tmp and /models cannot be written"
    ok "writes to /tmp and /models only"
    [[ $(podman exec "$id" grep -cE '^(CapEff:\s0{16}|NoNewPrivs:\s1)$' /proc/1/status) == 2 ]] || fail "capabilities"
    ok "no capability, no new privileges"
    [[ $(podman exec "$id" ls /models) == *textcraft-demo* ]] || fail "the volume is not seeded"
    ok "the new volume holds the bundled checkpoints"
    [[ $(podman exec "$id" cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null) == 4294967296 ]] ||
        fail "memory limit"
    ok "the kernel limits its memory to 4 GiB"
}

check_drain() {
    local id number
    id=$(container agentprm)
    for number in $(seq 0 $((REQUESTS - 1))); do
        curl -sS --max-time 600 -o /dev/null -w '%{http_code}\n' -H 'content-type: application/json' -d "@$WORK/body-$number.json" \
            "$SERVICE/score_trajectory" >"$WORK/code-$number" &
        callers+=($!)
    done
    until_true "requests wait in the queue" queue_is_long
    podman stop --time 60 "$id" >/dev/null 2>&1
    wait "${callers[@]}"
    [[ $(cat "$WORK"/code-* | sort | uniq -c | xargs) == "$REQUESTS 200" ]] || fail "replies: $(cat "$WORK"/code-* | xargs)"
    ok "told to stop in the middle of load it answered all $REQUESTS requests with 200"
    [[ $(podman inspect "$id" --format '{{.State.ExitCode}}') == 0 ]] || fail "exit status"
    ok "and exited with 0"
}

queue_is_long() { over "$(metric agentprm_queue_tokens)" 20000; }

# The replicas publish no port, the proxy does. Compose 2.24 and newer read `!reset` for that; here sed removes the port.
run_replicas() {
    sed '/^  agentprm:/,/^  redis:/{/ports:/d}' docker-compose.yml >"$WORK/base.yml"
    sed '/!reset/d' deploy/compose/replicas.yml >"$WORK/replicas.yml"
    docker-compose -f "$WORK/base.yml" -f "$WORK/replicas.yml" --project-directory . up -d --no-build --scale agentprm=3 \
        agentprm redis prometheus proxy >"$WORK/up.log" 2>&1 || { cat "$WORK/up.log" && fail "up"; }
    until_true "the proxy answers" curl -fsS --max-time 60 "$SERVICE/ready"
    until_true "Prometheus has all three replicas up" queries_to 'sum(up{job="agentprm"})' 3
    local number
    for number in $(seq 0 17); do
        [[ $(post score_step "$WORK/body-$number.json" -H "X-Trajectory-Id: $((number % 6))") == 200 ]] || fail "score_step"
    done
    ok "18 requests of 6 trajectories through the proxy: 200"
    until_true "more than one replica answered them" queries_to 'count(sum by (instance) (agentprm_requests_total{route="/score_step"}) > 0) > bool 1' 1
    podman kill "$(container agentprm)" >/dev/null
    for number in $(seq 0 5); do
        [[ $(post score_step "$WORK/body-$number.json" -H "X-Trajectory-Id: $number") == 200 ]] || fail "after a kill"
    done
    ok "one replica killed: each of the 6 trajectories is still answered"
}

step "Tools"
podman --version && buildah --version | cut -d' ' -f1-3 && docker-compose --version
configure
step "Stand-ins for the base images"
build_stand_ins
step "The image"
build --file docker/Dockerfile --target cpu --tag "docker.io/library/$(image_of agentprm)" .
ok "$(image_of agentprm), $(podman image inspect "$(image_of agentprm)" --format '{{.Size}}' | awk '{ printf "%d MB", $1 / 1e6 }') with its base"
check_health &
health_loop=$!
step "The stack"
run_stack
step "The container"
check_hardening
step "The drain"
check_drain
docker-compose down --volumes >/dev/null 2>&1
step "Three replicas behind the proxy"
run_replicas
step "Passed. Not proved here: the real base images, torch's CPU index, CUDA, Grafana, Docker and Compose 2"
