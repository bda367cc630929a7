# SPDX-License-Identifier: MIT
# Completion of the semel command for bash.
_semel() {
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local commands='serve call list describe ps cancel top trigger wait lock bench proxy sessions demo help'
    local common='--quiet --verbose --output --help --usage' options= words=

    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$current")
        return
    fi
    case $before in
    -o | --output) words='json text' ;;
    --orphans) words='kill wait' ;;
    --inspect) words='all own none' ;;
    esac
    if [ -n "$words" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    case ${COMP_WORDS[1]} in
    serve)
        options='--workers --on-demand --backlog --limit --max-run --idempotent --body-limit
            --kill-after --drain --ledger --insecure --session-idle --store --sql --on-crash
            --orphans --key-retention --foreign-keys --adopt --exchange --event-retention --locks
            --procs --program --recycle-calls --recycle-memory
            --describe --inspect --stream'
        ;;
    call)
        options='--timeout --connect-timeout --rerun-ok --key --outbox --refuse-when-full
            --body-limit --stream --raw --progress --send --chunk'
        ;;
    list) options='--all --timeout --connect-timeout' ;;
    describe) options='--timeout --connect-timeout' ;;
    ps) options='--processes --timeout --connect-timeout' ;;
    cancel) options='--force --timeout --connect-timeout' ;;
    top) options='--interval --timeout --connect-timeout' ;;
    trigger) options='--timeout --connect-timeout' ;;
    wait) options='--all --any --timeout --partial --connect-timeout' ;;
    lock) options='--timeout --connect-timeout --keep-running --kill-after' ;;
    bench)
        options='--threads --window --size --body --duration --calls --timeout --connect-timeout
            --refuse-when-full --rerun-ok'
        ;;
    proxy) options='--cut-every --half-open --mid-frame --delay --seed --stats' ;;
    sessions)
        # A store whose scheme bash takes for two more words: sqlite : PATH.
        local verb=3
        [ "${COMP_WORDS[3]-}" = : ] && verb=5
        [ "$COMP_CWORD" -eq "$verb" ] && words='list show forget poisoned renew'
        ;;
    demo) options='--seconds --clients --kill-every --cut-every --seed --keep' ;;
    help) words=$commands common= ;;
    esac
    case $current in
    -*) mapfile -t COMPREPLY < <(compgen -W "$options $common" -- "$current") ;;
    *)
        if [ -n "$words" ]; then
            mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        else
            [ "$current" = : ] && current=
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
        fi
        ;;
    esac
}
complete -o filenames -F _semel semel
