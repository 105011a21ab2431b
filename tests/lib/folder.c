#include "folder.h"

#include <dirent.h>
#include <unistd.h>

void folder_make(folder *f)
{
    snprintf(f->path, sizeof f->path, "/tmp/outr-unit-XXXXXX");
    if (!mkdtemp(f->path)) {
        perror("mkdtemp");
        abort();
    }
}

static void empty(const char *path)
{
    char child[4096];
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (unlink(child)) {
            empty(child);
            rmdir(child);
        }
    }
    if (dir)
        closedir(dir);
}

void folder_remove(folder *f)
{
    empty(f->path);
    rmdir(f->path);
}

const char *folder_path(const folder *f, const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", f->path, name);
    return path;
}

void folder_write(const folder *f, const char *name, const char *text)
{
    const char *temporary = folder_path(f, ".writing"), *path = folder_path(f, name);
    FILE *file = fopen(temporary, "w");
    bool is_good = file && fputs(text, file) >= 0;
    if (file)
        is_good = fclose(file) == 0 && is_good;
    if (!is_good || rename(temporary, path)) {
        perror(path);
        abort();
    }
}
