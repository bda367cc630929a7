# SPDX-License-Identifier: MIT
# Completion of the semel command for bash.
_semel() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local common='--quiet --verbose --output --help --usage' options=

    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'serve call bench proxy help --help --version' \
            -- "$current")
        return
    fi
    case $before in
    -o | --output)
        mapfile -t COMPREPLY < <(compgen -W 'json text' -- "$current")
        return
        ;;
    --ledger | --stats)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
        ;;
    esac
    case ${COMP_WORDS[1]} in
    serve)
        options='--workers --on-demand --backlog --limit --max-run --idempotent --body-limit
            --kill-after --drain --ledger --insecure'
        ;;
    call) options='--timeout --connect-timeout --rerun-ok --refuse-when-full --body-limit' ;;
    bench)
        options='--threads --window --size --body --duration --calls --timeout --connect-timeout
            --refuse-when-full --rerun-ok'
        ;;
    proxy) options='--cut-every --half-open --mid-frame --delay --seed --stats' ;;
    help) options='serve call bench proxy' common= ;;
    esac
    case $current in
    -*) mapfile -t COMPREPLY < <(compgen -W "$options $common" -- "$current") ;;
    *)
        if [ "${COMP_WORDS[1]}" = help ]; then
            mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
        fi
        ;;
    esac
}
complete -o filenames -F _semel semel
