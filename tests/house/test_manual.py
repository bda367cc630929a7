# SPDX-License-Identifier: MIT
"""Section 3 of the manual says what the headers say: the same functions, prototypes, contracts and
types, and no others; its examples compile, without a warning."""

import os
import re
import tempfile
import unittest

import house

FOLDER = 'docs/man'
STRICT = ['-Wall', '-Wextra', '-pedantic', '-Werror', '-c', '-o', '/dev/null']
INLINE = {'semel_bytes', 'semel_bytes_text'}  # in bytes.h, of no page


def page_names(section=3):
    return sorted(name[:-len('.scd')] for name in os.listdir(os.path.join(house.ROOT, FOLDER))
                  if name.endswith(f'.{section}.scd'))


def page(name):
    return house.read(os.path.join(FOLDER, name + '.scd'))


def part(text, title):
    """What stands below a heading; '' without it."""
    found = re.search(r'^# ' + title + r'\n(.*?)(?=^# |\Z)', text, re.S | re.M)
    return found.group(1) if found else ''


def sources(text):
    return re.findall(r'^```\n(.*?)^```$', text, re.S | re.M)


def literals(text):
    """As they are shown: scdoc takes a backslash away, and what follows stands for itself."""
    return [re.sub(r'\\(.)', r'\1', source, flags=re.S) for source in sources(text)]


def lost(text):
    """The lines of a page's literals of which scdoc takes a backslash that belongs to them: those
    in which it stands alone."""
    return [line for source in sources(text) for line in source.splitlines()
            if '\\' in line.replace('\\\\', '')]


def header(name):
    return house.read(os.path.join('include', name))


def squeezed(text):
    return re.sub(r'\s+', ' ', text).strip()


def words(text):
    return re.findall(r'\w+', text.replace('\\_', '_'))


def prototypes(text):
    """{function: its prototype} of a header, without what only the compiler reads."""
    found = {}
    for match in re.finditer(r'^SEMEL_API\s+([^;{]*);', re.sub(r'/\*.*?\*/', '', text, flags=re.S),
                             re.M):
        prototype = squeezed(match.group(1).replace('SEMEL_MUST_USE', ''))
        found[re.search(r'(\w+)\s*\(', prototype).group(1)] = prototype
    return found


def contracts(text):
    """{function: the words of the comment above it}."""
    found, comment = {}, ''
    for match in re.finditer(r'/\*.*?\*/|^SEMEL_API[^;{]*;', text, re.S | re.M):
        if match.group().startswith('/*'):
            comment = match.group()
        else:
            found.update({name: words(comment) for name in prototypes(match.group())})
    return found


def synopsis(text):
    """{header: {function: its prototype}} of a page."""
    found = {}
    for literal in literals(part(text, 'SYNOPSIS')):
        include, rest = literal.split('\n', 1)
        name = re.fullmatch(r'#include <(semel/\w+\.h)>', include).group(1)
        found[name] = {re.search(r'(\w+)\s*\(', prototype).group(1): squeezed(prototype)
                       for prototype in rest.split(';') if prototype.strip()}
    return found


def described(text):
    """{function: the words about it} of a page."""
    found = {}
    for heading, about in re.findall(r'^(\*\w+\*\(\)(?:, \*\w+\*\(\))*)\n((?:\t.*\n|\n)*)',
                                     part(text, 'FUNCTIONS'), re.M):
        about = re.sub(r'(?<!\w)_|_(?!\w)', '', about.replace('\\_', '\0')).replace('\0', '\\_')
        found.update({name: words(about) for name in re.findall(r'\w+', heading)})
    return found


def problems(text):
    """What a page says otherwise than the headers that it is about."""
    about = described(text)
    of_all = {}
    for name, said in synopsis(text).items():
        declared = prototypes(header(name))
        of_all.update(declared)
        for function in sorted(set(said) | set(declared)):
            if said.get(function) != declared.get(function):
                yield f'{function}: "{said.get(function)}", not "{declared.get(function)}"'
        for function, contract in contracts(header(name)).items():
            if about.get(function) != contract:
                yield f'{function}: its contract is not that of {name}'
    for function in sorted(set(about) - set(of_all)):
        yield f'{function}: described, and not declared'
    declaring = '\n'.join(header(name) for name in synopsis(text))
    for literal in literals(part(text, 'TYPES')):
        for block in literal.strip().split('\n\n'):
            if block not in declaring:
                yield f'of no header: {block}'


def unknown(text, known):
    """Functions that a page names and that there are not."""
    named = re.findall(r'\*(semel_\w+)\*\(\)', text)
    for literal in literals(text):
        named += re.findall(r'\b(semel_\w+)\(', re.sub(r'/\*.*?\*/', '', literal, flags=re.S))
    return sorted(set(named) - known)


class Manual(unittest.TestCase):
    def test_each_header_has_its_page(self):
        shown = [name for page_name in page_names() for name in synopsis(page(page_name))]
        declaring = [name for name in house.headers('include') if prototypes(header(name))]
        self.assertEqual(sorted(shown), declaring)
        self.assertGreater(len(declaring), 12)

    def test_pages_say_what_headers_say(self):
        for name in page_names():
            with self.subTest(page=name):
                self.assertEqual(list(problems(page(name))), [])

    def test_what_they_name_is_there(self):
        known = set(INLINE)
        for name in house.headers('include'):
            known |= set(prototypes(header(name)))
        pages = {f'{n[:-2]}({n[-1]})' for section in (1, 3, 7) for n in page_names(section)}
        for section in (1, 3, 7):
            for name in page_names(section):
                with self.subTest(page=name):
                    self.assertEqual(unknown(page(name), known), [])
                    others = re.findall(r'\*(semel[\w-]*)\*(\(\d\))', page(name))
                    self.assertEqual({a + b for a, b in others} - pages, set())

    def test_examples_compile(self):
        count = 0
        for name in page_names():
            for text in literals(part(page(name), 'EXAMPLE')):
                count += 1
                with self.subTest(page=name), tempfile.TemporaryDirectory() as scratch:
                    source = os.path.join(scratch, 'example.c')
                    with open(source, 'w', encoding='utf-8') as file:
                        file.write(text)
                    for way in (['-std=c99', '-D_POSIX_C_SOURCE=200809L'], ['-std=gnu17']):
                        house.must(['gcc'] + way + STRICT +
                                   ['-I' + os.path.join(house.ROOT, 'include'), source])
        self.assertGreater(count, 9)

    def test_no_backslash_is_lost(self):
        for section in (1, 3, 7):
            for name in page_names(section):
                with self.subTest(page=name):
                    self.assertEqual(lost(page(name)), [])

    def test_pages_are_installed(self):
        listed = house.read(FOLDER + '/meson.build')
        for section in (1, 3, 7):
            for name in page_names(section):
                self.assertIn(f"'{name}'", listed)


class Tester(unittest.TestCase):
    """It sees what it is there to see."""

    def refuse(self, old, new, complaint):
        good = page('semel_queue.3')
        self.assertIn(old, good)
        self.assertIn(complaint, '\n'.join(problems(good.replace(old, new, 1))))

    def test_spoiled_pages(self):
        self.refuse('void *item,', 'int item,', 'semel_queue_put: "')
        self.refuse('void semel_queue_destroy(struct semel_queue *queue);\n', '',
                    'semel_queue_destroy: "None"')
        self.refuse('\nvoid semel_queue_destroy', '\nvoid semel_queue_end(void);\n'
                    'void semel_queue_destroy', 'semel_queue_end: "')
        self.refuse('OVERLOADED; NO_MEMORY', 'NO_MEMORY', 'semel_queue_put: its contract')
        self.refuse('*Since*: 0.3', '*Since*: 0.2', 'semel_queue_create: its contract')
        self.refuse('*semel_queue_items*(), ', '', 'semel_queue_items: its contract')
        self.refuse('\n*semel_queue_put*()',
                    '\n*semel_queue_end*()\n\tEnds.\n\n*semel_queue_put*()',
                    'semel_queue_end: described')
        self.refuse('int64_t takers;', 'int takers;', 'of no header')

    def test_lost_backslashes(self):
        good = page('semel_client.3')
        self.assertIn('"%s\\\\n"', good)
        self.assertEqual(lost(good), [])
        self.assertEqual(len(lost(good.replace('"%s\\\\n"', '"%s\\n"'))), 1)
        macro = page('semel_server.3')
        self.assertIn('OPTIONS_INIT', macro)
        spoiled = macro.replace('\\\\\n', '\\\n')
        self.assertGreater(len(lost(spoiled)), 1)
        self.assertEqual(list(problems(macro)), [])
        self.assertEqual(['of no header' in problem for problem in problems(spoiled)], [True])

    def test_unknown_names(self):
        known = set(prototypes(header('semel/queue.h')))
        self.assertEqual(unknown('see *semel_queue_get*()', known), [])
        self.assertEqual(unknown('see *semel_queue_got*()', known), ['semel_queue_got'])
        self.assertEqual(unknown('```\n/* semel_x() */ semel_queue_got(1);\n```\n', known),
                         ['semel_queue_got'])


if __name__ == '__main__':
    unittest.main()
