"""Result files of other projects as lines of rollout files, a file each."""
