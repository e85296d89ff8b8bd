//! The names of a repository's configuration that an agent may set, and the values they may have.
//!
//! Ordinary work needs them and git executes none of them. The one fact a newcomer gets wrong: many harmless-looking
//! groups hold one key that is a command (`gc.recentObjectsHook`, `merge.<name>.driver`, `submodule.<name>.update`), so
//! groups are written out, but for those whose every key is a colour or a yes and no.

use super::{Entry, Place, inside};

/// Keys without subsection.
const PLAIN: &[(&str, &[&str])] = &[
    ("am", &["keepcr", "messageid", "threeway"]),
    ("apply", &["ignorewhitespace", "whitespace"]),
    ("branch", &["autosetupmerge", "autosetuprebase", "sort"]),
    ("checkout", &["defaultremote", "guess", "thresholdforparallelism", "workers"]),
    ("clone", &["defaultremotename", "rejectshallow"]),
    ("commit", &["cleanup", "status", "verbose"]),
    (
        "core",
        &[
            "abbrev",
            "autocrlf",
            "bare",
            "bigfilethreshold",
            "checkstat",
            "commentchar",
            "commitgraph",
            "compression",
            "createobject",
            "eol",
            "filemode",
            "fscache",
            "hidedotfiles",
            "ignorecase",
            "logallrefupdates",
            "longpaths",
            "loosecompression",
            "multipackindex",
            "notesref",
            "precomposeunicode",
            "preloadindex",
            "quotepath",
            "repositoryformatversion",
            "safecrlf",
            "sharedrepository",
            "sparsecheckout",
            "sparsecheckoutcone",
            "splitindex",
            "symlinks",
            "trustctime",
            "untrackedcache",
            "warnambiguousrefs",
            "whitespace",
            "worktree",
        ],
    ),
    (
        "diff",
        &[
            "algorithm",
            "autorefreshindex",
            "colormoved",
            "colormovedws",
            "context",
            "dirstat",
            "ignoresubmodules",
            "indentheuristic",
            "interhunkcontext",
            "mnemonicprefix",
            "noprefix",
            "relative",
            "renamelimit",
            "renames",
            "statgraphwidth",
            "submodule",
            "suppressblankempty",
            "wordregex",
            "wserrorhighlight",
        ],
    ),
    (
        "extensions",
        &[
            "compatobjectformat",
            "noop",
            "objectformat",
            "partialclone",
            "preciousobjects",
            "refstorage",
            "relativeworktrees",
            "worktreeconfig",
        ],
    ),
    ("feature", &["experimental", "manyfiles"]),
    (
        "fetch",
        &[
            "all",
            "fsckobjects",
            "negotiationalgorithm",
            "output",
            "parallel",
            "prune",
            "prunetags",
            "recursesubmodules",
            "showforcedupdates",
            "unpacklimit",
            "writecommitgraph",
        ],
    ),
    (
        "gc",
        &[
            "aggressivedepth",
            "aggressivewindow",
            "auto",
            "autodetach",
            "autopacklimit",
            "bigpackthreshold",
            "cruftpacks",
            "logexpiry",
            "maxcruftsize",
            "packrefs",
            "pruneexpire",
            "reflogexpire",
            "reflogexpireunreachable",
            "rerereresolved",
            "rerereunresolved",
            "worktreepruneexpire",
            "writecommitgraph",
        ],
    ),
    ("http", &["postbuffer"]),
    ("i18n", &["commitencoding", "logoutputencoding"]),
    ("index", &["recordendofindexentries", "recordoffsettable", "skiphash", "sparse", "threads", "version"]),
    ("init", &["defaultbranch", "defaultobjectformat", "defaultrefformat"]),
    ("lfs", &["repositoryformatversion"]),
    (
        "log",
        &[
            "abbrevcommit",
            "date",
            "decorate",
            "diffmerges",
            "excludedecoration",
            "follow",
            "graphcolors",
            "initialdecorationset",
            "mailmap",
            "showroot",
        ],
    ),
    ("maintenance", &["auto", "strategy"]),
    (
        "merge",
        &[
            "autostash",
            "branchdesc",
            "conflictstyle",
            "directoryrenames",
            "ff",
            "log",
            "renamelimit",
            "renames",
            "renormalize",
            "stat",
            "verbosity",
        ],
    ),
    (
        "pack",
        &[
            "allowpackreuse",
            "compression",
            "depth",
            "indexversion",
            "packsizelimit",
            "threads",
            "usebitmaps",
            "usesparse",
            "window",
            "windowmemory",
            "writebitmaphashcache",
            "writereverseindex",
        ],
    ),
    ("pull", &["ff", "rebase"]),
    ("push", &["autosetupremote", "default", "followtags", "recursesubmodules", "useforceifincludes"]),
    (
        "rebase",
        &[
            "abbreviatecommands",
            "autosquash",
            "autostash",
            "forkpoint",
            "maxlabellength",
            "missingcommitscheck",
            "rebasemerges",
            "stat",
            "updaterefs",
        ],
    ),
    ("receive", &["denycurrentbranch", "denydeletes", "denynonfastforwards"]),
    ("remote", &["pushdefault"]),
    ("rerere", &["autoupdate", "enabled"]),
    ("sparse", &["expectfilesoutsideofpatterns"]),
    ("stash", &["showincludeuntracked", "showpatch", "showstat"]),
    (
        "status",
        &[
            "aheadbehind",
            "branch",
            "displaycommentprefix",
            "relativepaths",
            "renamelimit",
            "renames",
            "short",
            "showstash",
            "showuntrackedfiles",
            "submodulesummary",
        ],
    ),
    (
        "submodule",
        &["active", "alternateerrorstrategy", "alternatelocation", "fetchjobs", "propagatebranches", "recurse"],
    ),
    ("tag", &["sort"]),
    ("user", &["email", "name", "useconfigonly"]),
    ("versionsort", &["suffix"]),
    ("worktree", &["guessremote", "userelativepaths"]),
];

/// Keys with a subsection: a branch, a remote, a submodule.
const NAMED: &[(&str, &[&str])] = &[
    (
        "branch",
        &[
            "base",
            "description",
            "gh-merge-base",
            "github-pr-owner-number",
            "merge",
            "pushremote",
            "rebase",
            "remote",
            "vscode-merge-base",
        ],
    ),
    ("lfs", &["access"]),
    (
        "remote",
        &[
            "fetch",
            "gh-resolved",
            "mirror",
            "partialclonefilter",
            "promisor",
            "prune",
            "prunetags",
            "push",
            "pushurl",
            "skipdefaultupdate",
            "skipfetchall",
            "tagopt",
            "url",
        ],
    ),
    ("submodule", &["active", "branch", "fetchrecursesubmodules", "ignore", "path", "shallow", "update", "url"]),
];

/// Sections whose every key is a colour, or a yes or no.
const WHOLE: &[&str] = &["advice", "color", "column"];

/// Whether an agent may add, change and remove this key at all.
pub(super) fn name(entry: &Entry) -> bool {
    if WHOLE.contains(&entry.section.as_str()) {
        return true;
    }
    let list = if entry.subsection.is_some() { NAMED } else { PLAIN };
    list.iter().any(|(section, keys)| *section == entry.section && keys.contains(&entry.key.as_str()))
}

/// Whether an agent may give the key this value.
pub(super) fn value(entry: &Entry, place: Place<'_>) -> bool {
    let value = entry.value.as_deref().unwrap_or_default();
    if value.chars().any(|character| character.is_control() && character != '\n' && character != '\t') {
        return false;
    }
    match (entry.section.as_str(), entry.key.as_str()) {
        ("core", "worktree") => inside(value, place),
        ("submodule", "update") => matches!(value, "checkout" | "rebase" | "merge" | "none"),
        ("remote" | "submodule", "url" | "pushurl") => address(value),
        // Texts that people write; everything else is a word, a number, a name or a pattern of names.
        ("branch", "description") => true,
        _ => !value.contains(['\n', '`']) && !value.starts_with(['!', '-']),
    }
}

/// Whether a remote's address makes git start nothing but its own transports: no `helper::address`, and nothing that
/// `ssh` would take for an option.
fn address(value: &str) -> bool {
    let scheme =
        value.find(|character: char| !character.is_ascii_alphanumeric() && !matches!(character, '+' | '-' | '.'));
    let helper = scheme.is_some_and(|end| end > 0 && value.get(end..).is_some_and(|rest| rest.starts_with("::")));
    !helper
        && !value.starts_with('-')
        && !value.contains(['\n', '\0'])
        && !value.contains("://-")
        && !value.contains(":-")
}
