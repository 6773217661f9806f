"""The words of docs/the-original-report.zh.md, in simplified Chinese.

A line of prose ends anywhere: where it is joined with the next, no space comes between two Chinese characters.

One term for a concept: greenlet 协程, to patch 打补丁, preload 预加载, lane and stack 环境, claim 断言, verdict 裁定,
held 成立, broken 不成立, unknown 无法判定, window 窗口, copy 副本, original 原件, listener 监听循环,
name look-up 域名解析, to have a turn 轮到, to give way 让出, fault 故障, daemon 守护. Master, worker and fork stay.
"""

from __future__ import annotations

from forkproof.original_report_words import (
    ARBITER,
    GEVENT_MONKEY,
    GEVENT_OS,
    GEVENT_WORKER,
    MULTIPROCESSING,
    PATCH_OS,
    THREAD_POOL,
    THREADING,
    Words,
)

_NEVER_ENDS = f"""\
TERM 不能让它结束：master 里的线程不是守护线程，而 Python 会等待这样的线程（{THREADING}）。"""
_KILLED = f"""\
收到 TERM 后，worker 会等待它的线程，因为那不是守护线程，直到 `graceful_timeout` 过后被 gunicorn
杀掉（{THREADING}）。"""
_CAUGHT = """\
偶尔，fork 恰好发生在原生线程导入模块的途中，见多次启动的那个场景。"""
_IN_AN_IMPORT = """\
监听循环做域名解析时，原生线程要首次导入所需的模块：gevent 的线程池，或者 Python 的 `idna` 编解码器。如果 fork
恰好发生在这时，worker 得到的可能是一个只导入了一半的模块（`Cannot import 'ThreadPool'`、`unknown encoding: idna`），
于是它启动之后就死掉，master 若能察觉便会替换它；也可能是一把再也没有人释放的导入锁，于是它活着，却永远不响应请求。
只要线程赶在 fork 之前完成导入，或者在 fork 之后才开始，就一切正常。"""
_LATE = f"""\
在最新的环境里，被杀掉的 worker 多半不会被替换：master 的队列是在应用打补丁之前创建的，所以 master 阻塞在原生调用里，
gevent 始终没有机会报告 worker 已死（{ARBITER}、{PATCH_OS}）。当年的 gunicorn 阻塞在 `select.select` 上，
那是补丁能够覆盖到的。"""
_BLOCKS_IN_THREAD = "用线程做阻塞的工作，配合 `patch_all(thread=False)`。"
_BLOCKS_IN_PROCESS = "用子进程做阻塞的工作，配合 `patch_all()`。"
_NEVER_GIVES_WAY = "两个循环，其中一个从不让出。"
_CONFIG_IMPORT = "同上，但由配置文件导入该模块。"
_WORKER_ALONE = "同上，但只由 worker 导入。"
_MANY_BOOTS = "与第一个相同，启动多次，不注入故障。"

_SPELT = {
    "thread": "线程",
    "process": "子进程",
    "sleep": "睡眠",
    "listen": "监听",
    "app_first_line": "应用的第一行",
    "config_first_line": "配置文件的第一行",
    "worker_class": "worker 类",
    "app_import": "导入应用时",
    "config_import": "导入配置文件时",
    "on_starting": "在 `on_starting` 中",
    "pre_fork": "在 `pre_fork` 中",
    "kill_worker": "杀掉 worker",
    "term": "发送 TERM",
}

CHINESE = Words(
    page="the-original-report.zh.md",
    introduction="""\
# 最初的报告

本页与[英文版](the-original-report.md)由同样的数据、同样的代码生成。

forkproof 始于一位用户的报告。他用 gunicorn 运行一个 Flask 应用：一个 worker，worker 类为 `GeventWebSocketWorker`。
应用调用 `gevent.monkey.patch_all()` 打猴子补丁，并在入口处启动一个 `threading.Thread`，在 `while True` 中监听 Redis。
他看到三个现象：

- (a) 循环在 worker 里也运行了一份。它的线程在 worker 里显示为 `_DummyThread`，在 master 里显示为 `Thread`。
- (b) 两个循环中有一个时不时会停下，而且再也不恢复。
- (c) 改用 `patch_all(thread=False)` 后没有副本了，但偶尔会出现这样一行：`Exception ignored in:
  <module 'gevent.threading' ...> AttributeError: ... no attribute '_after_fork'`。

他的看法是：多次打补丁时，实际打上的是所有为真的参数的并集。他提出的办法有：在 `on_starting` 中启动线程；
每一轮末尾调用 `gevent.sleep(0.1)`；方案 1：用线程做阻塞的工作，配合 `patch_all(thread=False)`；方案 2：用
`multiprocessing.Process` 做阻塞的工作，配合 `patch_all()`。

他没有说明 master 是怎样执行到应用代码的。这里始终尝试两种途径：预加载（`preload`），以及由配置文件导入启动线程的模块
（`config import`）。`no preload` 是对照，其中只有 worker 执行应用代码。他的线程不是守护线程，子进程不是守护进程
（daemon），这里的也不是。

简而言之：

- (a) 属实，两个环境都是如此，而且这正是 gevent 的本意。不用预加载就没有副本。
- (b) 确有其事，但他说的原因对不上：两个进程里的协程（greenlet）不可能互相妨碍运行。另外找到了三个原因：fork
  时循环正在做域名解析，副本永远等不到答复；master 从不运行 gevent 的事件循环，原件停住不动；两者读同一条连接，
  每条消息只到达其中一个。
- (c) 需要 Python 3.6 或更早的版本。找到的唯一途径并不需要 `thread=False`。
- 参数取并集属实。它还使每个 gevent worker 里的 `thread=False` 失效。
- `on_starting` 只有在此前什么都没有打补丁、而且 fork 没有恰好发生在该线程导入模块的途中时才有用。`gevent.sleep`
  能解决同一进程里循环互相阻塞的问题，解决不了副本。
- 方案 1 把工作留在 master；不用预加载时则会阻塞 worker。方案 2 要么每死一个 worker 就让工作多做一份，要么把工作留在
  master。
- 凡是发送了 TERM 的场景都没有正常结束，因为不是守护的线程和子进程会被等待：要么服务器一直不退出，要么 gunicorn
  只能杀掉 worker。
- 在当前的 gunicorn 上，预加载加上在应用里打补丁比他那时更糟：master 几乎不运行它的协程，而且多半不会替换死掉的
  worker（[发现](../findings/late-patch-no-respawn/README.md)）。

本页由 `python -m forkproof.original_report` 生成；加上 `--check` 会把所有场景重新运行一遍，有裁定不同就以失败退出。
单元格给出裁定，以及在能够判定的运行中有几次断言不成立。裁定有三种：成立（held）、不成立（broken）、无法判定（unknown）；
`-` 表示不适用。*轮到过*统计循环在该处、在某个窗口之内轮到过的运行有多少次。后来才有的断言，
只在此后又运行过的场景里有对应的行。断言各有[专页](../README.md#two-commands)，用词见[术语表](glossary.md)。""",
    sections={
        "copy": (
            "(a) 循环多出一份副本",
            f"""\
打过补丁的线程是协程，也就是一块内存，而 fork 会复制内存；原生线程则不会被复制（{GEVENT_OS}）。fork 之后，Python
只记得发起 fork 的那个线程，所以副本找不到属于自己的 `Thread`，得到的是一个 `_DummyThread`。两处的出生标识（birth id）
相同，说明它是副本，而不是又启动了一次。gunicorn 早在 2013 年就知道这件事
（[#478](https://github.com/benoitc/gunicorn/issues/478)）。`show_thread` 每 50 毫秒轮到一次，相当于轮询的循环；
`listen_redis` 等待消息。""",
        ),
        "stop": (
            "(b) 两个循环之一停下",
            f"""\
他给出的原因：两个协程同一时刻只有一个在运行，所以其中一个阻塞，另一个就无法运行。前三个场景正是这样：`work` 从不让出。
另一个循环确实停住不动，但该进程里的其他一切也都停住，而他并没有报告这一点。

他的两个循环是原件和它的副本，分处两个进程。在这些运行里，使两者之一停下的是：

- fork 时循环正在做域名解析。gevent 在原生线程池里解析域名，连 IP 地址也是如此；fork 之后它重建线程池，丢弃正在进行的
  工作（{THREAD_POOL}，`_on_fork`）。副本从此一直等待答复。结果取决于谁更快，所以正如他所说，只是时不时发生。
- master 从不进入 gevent 的事件循环，所以原件停住不动：最新环境里的 `symptom-a-copy-preload`。
- 原件和副本读同一条连接，每条消息只到达其中一个：这一节的最后一个场景。""",
        ),
        "after_fork": (
            "(c) thread=False，以及 _after_fork 那一行",
            """\
没有副本：原生线程在 fork 之后不复存在。但那一行另有原因。

在 Python 3.6 及更早的版本里，fork 之后会调用 `sys.modules["threading"]._after_fork()`
（[ceval.c](https://github.com/python/cpython/blob/3.6/Python/ceval.c)，`PyEval_ReInitThreads`），
并把抛出的异常打印为 `Exception ignored`。从 1.3 起，gevent 在为它的解析器导入 dnspython 期间，会把 `gevent.threading`
放在那个位置（[_patcher.py](https://github.com/gevent/gevent/blob/1.4.0/src/gevent/_patcher.py)），
而这时导入的模块可能会执行命令，也就会 fork。gevent 自己说明过这一点，并在 1.5a4 中绕开了它
（[提交](https://github.com/gevent/gevent/commit/10764aa465321ee5f338a01b35a661ae0307a0cb)，
`cached_platform_architecture`）。从 Python 3.7 起，`threading` 用
[os.register_at_fork](https://docs.python.org/3/library/os.html#os.register_at_fork) 注册自己的函数，不再按名字查找。

在这些运行之外手工试过：在当年的环境里装上 dnspython 1.16.0 和 pycryptodome 3.9.9，设置 `GEVENT_RESOLVER=dnspython`，
让应用解析一个主机名。用 `thread=False` 加预加载，8 次启动每次都打印出那一行；不用 `thread=False`，5 次中有 5 次；
不用预加载，5 次中有 5 次；用默认的解析器，8 次中一次也没有。所以这是得到那一行的一种途径，而 `thread=False` 与它无关。
他的情形是否如此，他没有说；他的报告显示的是 Python 3.5。""",
        ),
        "union": (
            "参数取并集",
            f"""\
他说，多次打补丁得到的是为真的参数的并集。gevent 在文档和警告里也是这样说的（{GEVENT_MONKEY}）。
表格给出每次调用之后打上了补丁的模块。""",
        ),
        "on_starting": (
            "提议：在 on_starting 中启动线程",
            """\
这个钩子在 master 里运行，早于第一次 fork。线程是不是原生线程，取决于此前给什么打过补丁。无论是不是，master
里的线程都够不到 worker 的 WebSocket。""",
        ),
        "gevent_sleep": (
            "提议：每一轮末尾调用 gevent.sleep(0.1)",
            """\
它能解决他以为的 (b) 的原因，即同一进程里的循环互相阻塞。它对副本不起作用。""",
        ),
        "plan_1": (
            "方案 1：用线程做阻塞的工作，thread=False",
            """\
`task` 每一轮都阻塞在一个原生调用里，从不让出给 gevent；`listen_redis` 是另一个循环。""",
        ),
        "plan_2": (
            "方案 2：用子进程做阻塞的工作",
            """\
`task` 在 `multiprocessing.Process` 中运行（启动方式为 fork，不是守护进程）；`listen_redis` 仍是线程，配合
`patch_all()`。""",
        ),
    },
    cases={
        "symptom-a-copy-preload": (
            "循环的第二份副本在 worker 里运行，显示为 `_DummyThread`。",
            f"""\
确实如此。与当年不同的是原件：从 gunicorn 24.0.0 起，master 阻塞在一个原生队列上，而这个队列是在应用打补丁之前创建的
（{ARBITER}），所以 master 几乎不运行它的协程。在当年的环境里两者都运行，每条消息被处理两次。{_NEVER_ENDS}""",
        ),
        "symptom-a-copy-config-import": (
            _CONFIG_IMPORT,
            f"""\
这里打补丁早于 gunicorn 创建它的队列，所以在两个环境里原件和副本都运行，消息被处理两次。{_NEVER_ENDS}""",
        ),
        "symptom-a-copy-no-preload": (
            "对照：同一个应用，但只由 worker 导入。",
            f"每个循环只在 worker 里运行一份，没有副本：循环启动之后再没有 fork。{_KILLED}",
        ),
        "symptom-b-one-loop-stops-preload": (
            _NEVER_GIVES_WAY,
            """\
打过补丁的线程一启动就立即运行。`work` 于是在导入应用的途中永远占住 master：一个 worker 也没有启动。""",
        ),
        "symptom-b-one-loop-stops-config-import": (_NEVER_GIVES_WAY, "同上，但发生在配置文件里。"),
        "symptom-b-one-loop-stops-no-preload": (
            _NEVER_GIVES_WAY,
            "同上，但发生在 worker 里：它始终处理不到第一个请求。",
        ),
        "symptom-b-copy-lost-in-lookup-preload": (
            "一个循环和它的副本，与他的情形相同。",
            """\
监听循环首先做域名解析，fork 紧随其后。副本不运行的情况在较早的一轮里见过，这一轮没有；那时 fork
恰好发生在域名解析的途中，副本始终没有订阅。在最新的环境里，原件多半停住不动，见 (a)。""",
        ),
        "symptom-b-copy-lost-in-lookup-forced": (
            "同一个竞态，强制发生：线程在 `pre_fork` 中启动，紧挨在 fork 之前。",
            """\
fork 多半早于答复，所以副本从未轮到：Redis 统计到一个接收者，只有原件处理消息。这时 `exactly_one_listener`
成立，因为想要的就是一个监听循环；尽管如此，`no_copied_thread` 仍能从 worker 对请求的响应中看出有副本。
副本继续运行、自行订阅的情况很少见。""",
        ),
        "symptom-b-shared-connection-config-import": (
            "一个循环、它的副本，以及一个被替换的 worker。",
            """\
第一个 worker 里的副本自行订阅，所以消息被处理两次。第二个 worker 在原件订阅之后才 fork 出来：它的副本读的是原件的连接，
Redis 统计到一个接收者，每条消息随机到达两者之一。每次都抢不到消息的循环，看上去就像停下了。""",
        ),
        "symptom-c-thread-false-preload": (
            "用 `patch_all(thread=False)` 就没有副本。",
            f"""\
确实没有，worker 死掉后监听循环在 master 里继续运行。{_CAUGHT}{_LATE}{_NEVER_ENDS}""",
        ),
        "symptom-c-thread-false-config-import": (
            _CONFIG_IMPORT,
            f"""\
没有副本，被杀掉的 worker 也得到替换。{_CAUGHT}{_NEVER_ENDS}原生线程在该线程自己的事件循环里使用 gevent
的套接字，在这些运行里没有出问题；但 gevent 并不保证这一点。""",
        ),
        "symptom-c-thread-false-many-boots": (_MANY_BOOTS, _IN_AN_IMPORT),
        "symptom-c-thread-false-no-preload": (
            _WORKER_ALONE,
            f"""\
`thread=False` 在这里不起作用：worker 类在导入应用之前已经调用过 `patch_all()`（{GEVENT_WORKER}），
所以线程仍然是协程。它运行正常，因为这个监听循环会让出。{_KILLED}""",
        ),
        "claim-union-of-flags-add": (
            "先 `thread=False`，再全部打补丁。",
            "第二次调用补上了 `threading`，此后启动的线程被复制。",
        ),
        "claim-union-of-flags-remove": (
            "先全部打补丁，再 `thread=False`。",
            "第二次调用什么也没有撤销：`threading` 上的补丁还在，线程被复制。",
        ),
        "claim-union-of-flags-worker-class": (
            "两次 `thread=False`；其间 worker 类自行打补丁。",
            f"""\
我们的两次调用都没有给 `threading` 打补丁，但在 worker 里它打上了补丁：gunicorn 的 gevent worker 会调用
`patch_all()`（{GEVENT_WORKER}）。""",
        ),
        "proposal-on-starting-no-preload": (
            "在 `on_starting` 中启动真正的线程。",
            f"""\
master 里什么都没有打补丁，所以这些线程是原生线程，留在 master 里，worker 死掉后仍继续运行。到此为止是管用的。
{_CAUGHT}{_NEVER_ENDS}""",
        ),
        "proposal-on-starting-preload": (
            "同上，加上预加载，并在应用里打补丁。",
            f"""\
应用在钩子运行之前已被导入，所以这些线程是协程，会被复制。{_LATE}{_NEVER_ENDS}""",
        ),
        "proposal-on-starting-config-import": (
            "同上，但在配置文件里打补丁。",
            f"""\
打补丁早于钩子运行，所以线程被复制到每个 worker。替换上来的 worker 里，副本读的是原件的连接，见 (b)。{_NEVER_ENDS}""",
        ),
        "proposal-on-starting-thread-false-preload": (
            "同上，加上预加载和 `thread=False`。",
            f"这些线程是原生线程，所以没有副本。{_CAUGHT}{_LATE}{_NEVER_ENDS}",
        ),
        "proposal-on-starting-many-boots": (
            _MANY_BOOTS,
            """\
原生线程要导入域名解析所需的模块，fork 可能恰好发生在这时，与 `symptom-c-thread-false-many-boots` 一样。这里
master 没有打补丁，所以它能察觉，并替换因此死掉的 worker。""",
        ),
        "proposal-gevent-sleep-no-preload": (
            "每一轮末尾调用 `gevent.sleep(0.1)`。",
            "两个循环都在 worker 里运行，它也响应请求：与 `symptom-b-one-loop-stops-no-preload` 对比。",
        ),
        "proposal-gevent-sleep-preload": (
            "同上，加上预加载。",
            "`work` 被复制。在最新环境的 master 里，两个循环都停住不动，见 (a)。",
        ),
        "proposal-gevent-sleep-config-import": (
            _CONFIG_IMPORT,
            "四个都在运行：master 里两个原件，worker 里两个副本。",
        ),
        "plan-1-thread-false-preload": (
            _BLOCKS_IN_THREAD,
            f"""\
两个线程都是原生线程，在 master 里并行运行；worker 里一个也没有。{_CAUGHT}{_LATE}{_NEVER_ENDS}""",
        ),
        "plan-1-thread-false-config-import": (
            _CONFIG_IMPORT,
            f"与预加载时一样，而且被杀掉的 worker 得到替换。{_CAUGHT}{_NEVER_ENDS}",
        ),
        "plan-1-thread-false-no-preload": (
            _WORKER_ALONE,
            """\
参数取并集使这个方案失效：worker 类已经给线程打过补丁，所以 `task` 是一个阻塞 worker 的协程。监听循环从未开始，
没有请求得到响应，收到 TERM 时 gunicorn 只能杀掉 worker。另一个故障没有注入，因为 worker 始终没有完成启动；
因此那些没有它也成立的断言，裁定为无法判定。""",
        ),
        "plan-2-process-no-preload": (
            _BLOCKS_IN_PROCESS,
            f"""\
在 worker 死掉之前它是管用的。被杀掉的 worker 不会结束自己的子进程，接替它的 worker 又启动一个，从此工作做两遍。收到
TERM 后，worker 会等待它的线程和子进程，两者都不是守护的，直到被 gunicorn 杀掉；子进程则遗留下来
（{MULTIPROCESSING}）。""",
        ),
        "plan-2-process-preload": (
            "同上，加上预加载。",
            f"""\
只有一个子进程，属于 master，不受 worker 生死的影响。监听循环被复制，与 (a) 一样。{_LATE}TERM 不能让它结束：master
会等待它的线程和子进程，两者都不是守护的（{MULTIPROCESSING}）。""",
        ),
        "plan-2-process-config-import": (
            _CONFIG_IMPORT,
            f"""\
只有一个子进程，属于 master，监听循环被复制。在最新的环境里，退出的 worker 打印
`can only join a child process`：它继承了父进程的子进程列表，并试图等待它们。TERM 不能让 master
结束：它会等待它的线程和子进程（{MULTIPROCESSING}）。""",
        ),
    },
    lanes={"now": "最新的发行版", "then": "报告当年的发行版"},
    spelt=_SPELT.__getitem__,
    comma="，",
    semicolon="；",
    stacks_head=("环境", "版本"),
    stack_of="{lane}：{meaning}",
    after_fork="在本页的全部运行中统计：",
    after_fork_lines="{lane}：{runs} 次运行（其中 {native} 次用 `thread=False`）中，这样的行有 {lines} 行",
    deployment="部署：{deployment}。",
    server="{workers} 个 `{worker_class}` worker，{preload}",
    preload={True: "用预加载", False: "不用预加载"},
    patch="{call}（{site}）",
    loop="`{name}`（{kind}，{body}，{turn}），{start}启动",
    no_yield="自身不让出",
    faults="随后{faults}",
    claims_head=("断言", "循环"),
    verdicts={"held": "成立", "broken": "**不成立**", "unknown": "无法判定"},
    places_head=("循环", "位置", "显示为"),
    ran="轮到过 {ran}/{runs}",
    no_turn="（未轮到）",
    copy="{thread}，副本",
    losses="有 worker 自行结束：{each}。",
    losses_of="{lane} 的 {runs} 次运行中有 {lost} 次",
    messages_head=("环境", "最后一个窗口中的消息", "Redis 统计的接收者", "处理者"),
    nobody="无",
    patches_head=("环境", "调用", "进程", "此后打上了补丁的模块", "运行次数"),
)
