# Builds the stage in private mount and process namespaces, says so, and holds it until standard input closes.
# Arguments: folder of the stage, folder of the programs, folder of the pinned agents; the last two may be empty.
set -eu
stage=$1 programs=$2 agents=$3

# What the machine has, before it is covered.
if [ -n "$programs" ]; then mount --bind "$programs" "$stage/programs"; fi
for agent in claude codex gemini; do
  if [ -n "$agents" ] && [ -d "$agents/$agent/node_modules" ]; then
    mount --bind "$agents/$agent/node_modules" "$stage/$agent"
  fi
done

# Folders that may be changed: what is written lands in memory and goes away with the stage.
mount -t tmpfs -o mode=755 none "$stage/layers"
for folder in etc usr var opt; do
  mkdir -p "$stage/layers/$folder/up" "$stage/layers/$folder/work"
  mount -t overlay overlay \
    -o "lowerdir=/$folder,upperdir=$stage/layers/$folder/up,workdir=$stage/layers/$folder/work" "/$folder"
done
cat "$stage/passwd" >>/etc/passwd
cat "$stage/group" >>/etc/group
for rest in claude-code codex creel; do rm -rf "/etc/$rest" "/var/lib/$rest"; done

# Folders that begin empty.
mount --bind "$stage/home" /home
mount --bind "$stage/root" /root
mount --bind "$stage/run" /run
mount -t tmpfs -o mode=1777,nosuid,nodev none /dev/shm

# The pinned agents where `npm install -g` puts them.
if mountpoint -q "$stage/claude"; then
  mkdir -p /usr/lib/node_modules/@anthropic-ai
  mount --rbind "$stage/claude/@anthropic-ai" /usr/lib/node_modules/@anthropic-ai
  ln -sf ../lib/node_modules/@anthropic-ai/claude-code/bin/claude.exe /usr/bin/claude
fi
if mountpoint -q "$stage/codex"; then
  mkdir -p /usr/lib/node_modules/@openai
  mount --rbind "$stage/codex/@openai" /usr/lib/node_modules/@openai
  ln -sf ../lib/node_modules/@openai/codex/bin/codex.js /usr/bin/codex
fi
if mountpoint -q "$stage/gemini"; then
  mkdir -p /usr/lib/node_modules/@google
  mount --rbind "$stage/gemini/@google" /usr/lib/node_modules/@google
  ln -sf ../lib/node_modules/@google/gemini-cli/bundle/gemini.js /usr/bin/gemini
fi
# The programs as copies in an ordinary place that root owns: their paths end up in other programs' settings.
if [ -n "$programs" ]; then
  install -m 755 "$stage"/programs/creel "$stage"/programs/creeld "$stage"/programs/creel-hook /usr/bin/
  # What tries to get out of cages, where the tests put it.
  if [ -e "$stage/programs/creel-escape" ]; then install -m 755 "$stage/programs/creel-escape" /usr/bin/; fi
fi

# Last, because the stage's own folder may be below it.
mount --bind "$stage/tmp" /tmp
echo ready
# This shell is the stage's first process: it reaps whoever is left behind, and when it ends the kernel ends all others.
while read -r _; do :; done
