//! Ordinary git work goes on.

use super::{REPOSITORY, run};

/// Two hundred real operations, on a repository from before and on new ones, nested ones, worktrees and submodules.
const GIT_WORK: &str = r#"
count=0
g() { count=$((count + 1)); git "$@" > "$P/log" 2>&1 || { echo "git $* failed:"; cat "$P/log"; exit 1; }; }
commit() { echo "$1" >> "$2"; g add "$2"; g commit -m "$1"; }
for number in 1 2 3 4 5; do commit "change $number" a; done
g fsck; g status; g log --oneline; g diff HEAD~1; g show HEAD; g blame a; g shortlog HEAD; g describe --all
g config user.name B; g config user.email b@c; g config --get user.name; g config --unset user.name
g branch topic; g checkout topic; commit topic t; g checkout main; g merge --no-ff -m merge topic; g branch -d topic
g switch -c feature; commit f1 f; commit f2 f; commit f3 f; g switch main; commit m1 m; g switch feature
g rebase main; g rebase -i --exec true main; g rebase --root; g switch main; g merge feature; g branch -m feature done
g branch -f moved HEAD~1; g branch -D moved; g branch --set-upstream-to=done main; g branch --unset-upstream
echo s >> a; g stash; g stash list; g stash pop; g stash push -m name; g stash apply; g checkout -- a; g stash drop
g tag v1; g tag -a v2 -m two; g tag -d v1; g tag --list; g notes add -m note; g notes show
g mv a b; g commit -m moved; g rm b; g commit -m gone; g revert --no-edit HEAD; g switch -c pick HEAD~1; commit pick k; g switch main; g cherry-pick pick; g branch -D pick
g reset --soft HEAD~1; g reset --hard; g restore --source HEAD~1 b; g checkout -- b; g clean -fd
mkdir deep; commit deep deep/x; g mv deep deeper; g commit -m deeper; g grep deep; g ls-files; g ls-tree -r HEAD
g archive -o log.tar HEAD; g bundle create log.bundle --all; g format-patch -o patches HEAD~2; g reset --hard HEAD~2
g am patches/*; rm -r patches log.tar log.bundle; g reflog; g gc; g repack -ad; g prune; g count-objects
g pack-refs --all; g update-index --refresh; g rev-parse HEAD; g cat-file -p HEAD; g hash-object -w b; g write-tree
g bisect start; g bisect bad; g bisect good HEAD~3; g bisect reset; g symbolic-ref HEAD; g for-each-ref
g init --bare ../w/server.git; g remote add origin "$W/server.git"; g push -u origin main; g push --tags origin
g push origin done; g fetch; g fetch --all --prune; g pull; g pull --rebase; g remote -v; g remote show origin
g ls-remote origin; g remote rename origin up; g remote set-url up "$W/server.git"; g remote prune up
g push up --delete done; g branch -r; g remote set-head up -a; g remote add other "$W/server.git"; g remote remove other
g clone "$W/server.git" clone; g -C clone config user.name C; echo c > clone/c; g -C clone add c
g -C clone commit -m clone; g -C clone push; g pull; g -C clone checkout -b far; g -C clone push -u origin far
g -C clone remote set-branches origin main far; g clone --bare clone copy.git; g clone --depth 1 "file://$W/clone" thin
g clone --mirror clone mirror.git; g -C mirror.git remote update; g clone --no-checkout clone none; rm -rf none thin
g init fresh; g -C fresh commit --allow-empty -m first; g init --separate-git-dir "$W/apart" away; rm -rf away apart
g init -b trunk fresh2; g -C fresh2 config core.autocrlf input; rm -rf fresh fresh2 mirror.git copy.git
g worktree add tree; g worktree list; echo w > tree/w; g -C tree add w; g -C tree commit -m tree; g merge tree
g worktree lock tree; g worktree unlock tree; g worktree move tree moved; g -C moved status; g worktree remove moved
g worktree add -b second tree2; rm -rf tree2; g worktree prune; g branch -D second tree
g init lib; echo l > lib/l; g -C lib add l; g -C lib commit -m lib
g submodule add "$W/lib" sub; g commit -m sub; g submodule status; g submodule foreach true
g -C lib commit --allow-empty -m lib2; g submodule update --remote; g add sub; g commit -m update
g -C sub checkout -b work; echo x > sub/x; g -C sub add x; g -C sub commit -m x; g submodule sync; g submodule deinit -f sub
g submodule update --init; g clone --recurse-submodules . whole; g -C whole submodule update --init --recursive
g submodule absorbgitdirs; g submodule set-branch -b main sub; g checkout .gitmodules; rm -rf whole
g rm -f sub; g commit -m nosub; rm -rf .git/modules/sub
g sparse-checkout init --cone; g sparse-checkout set deeper; g sparse-checkout disable; g commit --amend -m amended
g maintenance run --task=gc; g commit-graph write; g multi-pack-index write; g rev-list --count HEAD; g name-rev HEAD
g config gc.auto 0; g config pull.rebase true; g config branch.main.description text; g config --remove-section gc
g config extensions.worktreeConfig true; g config --worktree core.sparseCheckout false; g commit --allow-empty -m end
g checkout --orphan lone; g rm -rf --quiet .; g commit --allow-empty -m lone; g checkout main; g status
echo "$count operations"
[ "$count" -ge 200 ]
"#;

#[test]
fn two_hundred_git_operations_go_on() {
    run(REPOSITORY, GIT_WORK).well();
}
