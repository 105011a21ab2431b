/* Runs a fuzz target over every file of the directories it is given. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t n = 0, cap = 0;
    if (!file)
        return -1;
    for (;;) {
        if (cap - n < 65536)
            data = realloc(data, cap = cap * 2 + 65536);
        size_t got = data ? fread(data + n, 1, cap - n, file) : 0;
        if (got == 0)
            break;
        n += got;
    }
    fclose(file);
    uint8_t *exact = malloc(n ? n : 1); /* so that a read past the end is seen */
    for (size_t i = 0; exact && i < n; i++)
        exact[i] = data[i];
    if (exact)
        LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    size_t count = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        char path[4096];
        for (struct dirent *entry; dir && (entry = readdir(dir));) {
            snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            if (entry->d_name[0] != '.' && replay_file(path) == 0)
                count++;
        }
        if (dir)
            closedir(dir);
    }
    printf("%zu inputs\n", count);
    return count ? 0 : 1;
}
