# Boots the stage's own /usr and a copy of its /etc under a real systemd, which runs one script and goes away.
# Arguments: the script. To be run in new mount, process, network, ipc, host-name and control-group namespaces, as root.
# What the script prints goes to /tmp/manager.out of the stage.
set -eu
script=$1
outside=$(mktemp -d /tmp/manager.XXXXXX)
mount -t tmpfs none "$outside"
touch /tmp/manager.out
cd "$outside"
mkdir usr etc var run tmp proc sys dev root home old out
mount --rbind /usr usr
cp -a /etc/. etc/
# Only creel's units: whatever else this machine starts is not for here.
rm -rf etc/systemd/system
mkdir -p etc/systemd/system
for link in bin sbin lib lib64; do ln -s "usr/$link" "$link"; done
mount -t proc none proc
mount --rbind /sys sys
mount -t tmpfs none sys/fs/cgroup
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs none dev
for node in null zero full random urandom tty; do touch "dev/$node"; mount --bind "/dev/$node" "dev/$node"; done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 none dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs none run
mount -t tmpfs none tmp
mkdir -p var/lib var/log var/tmp
touch out/log out/script
mount --bind /tmp/manager.out out/log
mount --bind "$script" out/script
cat >etc/systemd/system/all.target <<UNIT
[Unit]
Requires=basic.target creeld.socket creeld-root.service creeld.service script.service
After=basic.target
UNIT
cat >etc/systemd/system/script.service <<UNIT
[Unit]
After=creeld.service creeld-root.service systemd-journald.service
[Service]
Type=oneshot
ExecStart=/bin/bash /out/script
StandardOutput=append:/out/log
StandardError=inherit
ExecStopPost=/bin/systemctl --no-block --force poweroff
UNIT
pivot_root . old
umount -l /old
exec env -i container=creel PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /usr/lib/systemd/systemd --system --unit=all.target --log-target=null --show-status=no </dev/null
