#!/usr/bin/env bash
# provision.sh: get what the tests run against: RabbitMQ, nats-server,
# PostgreSQL, Chromium and a font. It installs with apt what is missing, when it may, and says by
# name what it could not get: those tests are then skipped, or fail under
# SIGNALBOX_TEST_STRICT=1. It never leaves the packaged RabbitMQ, NATS
# or PostgreSQL service running: tests start their own on free loopback ports.
set -u

say() { printf 'provision: %s\n' "$*"; }

have_rabbitmq() { [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null; }
have_nats() { command -v nats-server >/dev/null || [ -x /usr/sbin/nats-server ]; }
postgres_bin() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1; }
have_postgres() { command -v postgres >/dev/null || [ -x "$(postgres_bin)/postgres" ]; }
have_chromium() { command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; }
have_fonts() { [ -n "$(find /usr/share/fonts -name '*.ttf' -print -quit 2>/dev/null)" ]; }

wanted=()
[ -n "${SIGNALBOX_TEST_RABBITMQ_URL:-}" ] || have_rabbitmq || wanted+=(rabbitmq-server)
[ -n "${SIGNALBOX_TEST_NATS_URL:-}" ] || have_nats || wanted+=(nats-server)
[ -n "${SIGNALBOX_TEST_POSTGRES:-}" ] || have_postgres || wanted+=(postgresql)
have_chromium || wanted+=(chromium)
have_fonts || wanted+=(fonts-dejavu-core)

if [ ${#wanted[@]} -gt 0 ]; then
	if ! command -v apt-get >/dev/null; then
		say "missing: ${wanted[*]}; there is no apt-get here, so install them by hand"
	elif [ "$(id -u)" != 0 ]; then
		say "missing: ${wanted[*]}; run as root: apt-get install --no-install-recommends ${wanted[*]}"
	else
		say "installing ${wanted[*]}"
		# policy-rc.d keeps the packages from starting their services.
		policy=/usr/sbin/policy-rc.d made=
		if [ ! -e $policy ]; then
			printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=1
			trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		fi
		# Nor does the PostgreSQL package need a cluster of its own.
		if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
			mkdir -p /etc/postgresql-common && printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.conf
		fi
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -qq || say "apt-get update: not complete; going on with the lists there are"
		# One by one: one that cannot be had must not keep the others away.
		for p in "${wanted[@]}"; do
			say "apt-get install $p ..."
			if apt-get install -y -qq --no-install-recommends "$p" >/tmp/provision.$$.log 2>&1; then
				say "installed $p"
			else
				say "could not install $p:"
				tail -5 /tmp/provision.$$.log
			fi
			rm -f /tmp/provision.$$.log
		done
		[ -z "$made" ] || { rm -f $policy; trap - EXIT; }
	fi
fi

# What runs with a broker of another major version proves something else.
status=0
version() { # name, pattern of the versions tested, version found
	local name=$1 want=$2 have=$3
	# shellcheck disable=SC2254 # want is a pattern
	case $have in
	'') say "$name: missing"; status=1 ;;
	$want) say "$name $have" ;;
	*) say "$name $have: tests are written for $want and may tell something new" ;;
	esac
}

if [ -n "${SIGNALBOX_TEST_RABBITMQ_URL:-}" ]; then
	say "RabbitMQ: the one SIGNALBOX_TEST_RABBITMQ_URL names"
else
	version RabbitMQ '[34].*' "$(ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-* 2>/dev/null | sed 's/.*-//' | tail -1)"
fi
if [ -n "${SIGNALBOX_TEST_NATS_URL:-}" ]; then
	say "nats-server: the one SIGNALBOX_TEST_NATS_URL names"
else
	nats=$(command -v nats-server || echo /usr/sbin/nats-server)
	version nats-server '2.*' "$($nats --version 2>/dev/null | sed 's/.*v//')"
fi
if [ -n "${SIGNALBOX_TEST_POSTGRES:-}" ]; then
	say "PostgreSQL: the one SIGNALBOX_TEST_POSTGRES names"
else
	postgres=$(command -v postgres || echo "$(postgres_bin)/postgres")
	version PostgreSQL '1[4-9].*' "$($postgres --version 2>/dev/null | sed 's/[^0-9]*\([0-9.]*\).*/\1/')"
fi
version Chromium '[0-9]*' "$( (chromium --version || chromium-browser --version || google-chrome --version) 2>/dev/null | sed 's/[^0-9]*\([0-9.]*\).*/\1/')"
if ! have_fonts; then
	say "fonts: missing"
	status=1
fi
if [ "${SIGNALBOX_TEST_STRICT:-}" = 1 ]; then
	exit $status
fi
exit 0
