"""The sentences the simulated model knows. Data only: what becomes of them is in `text.py`.

They mix what real answers mix, because each has broken some proxy: plain prose, lists, code with quotes, backslashes
and tabs, other scripts, combining accents, and emoji (which a tokeniser spreads over several tokens).
"""

PROSE = (
    "The short answer is yes, but it depends on how much traffic you expect.",
    "A continuous batch keeps the accelerator busy while single answers come and go.",
    "In practice, most of the latency before the first token is spent waiting in the queue.",
    "You can verify this by comparing the median with the ninety-ninth percentile.",
    "Let us look at an example with 3 replicas and 128 concurrent users.",
    "The cache holds keys and values for every token that has been computed so far.",
    "Longer prompts take more time to prefill, and they leave less room for others.",
    "If the budget is exhausted, new requests are refused until the next window opens.",
    "This approach is simple, robust, and easy to reason about; it is rarely the fastest.",
    "Note that the two numbers are not comparable, since they measure different things.",
    "First, check that the service is reachable; then read its log for the last ten minutes.",
    "That said, I would not change the default unless a measurement tells you to.",
    "The contract renews on 1 March and may be cancelled with 30 days' notice.",
    "According to the document, the warranty covers parts and labour for 24 months.",
    "Revenue grew by 12.5% year over year, while operating costs stayed flat.",
    "She closed the window, listened for a moment, and went back to her desk.",
    "Both answers are defensible, so the deciding factor is who has to maintain the result.",
    "To summarise: measure first, change one thing at a time, and keep the old version at hand.",
    "I could not find that figure in the text you provided.",
    "Would you like me to go into more detail on any of these points?",
    "Das Modell antwortet schneller, wenn der gemeinsame Anfang schon im Speicher liegt; größere Eingaben dauern.",
    "Le café est ouvert dès sept heures, même l'été, à côté de la mairie.",
    "El tiempo de espera depende del tamaño de la cola y no sólo de la tarjeta gráfica.",
    "Время ответа зависит от длины очереди.",
    "模型会逐个生成词元，直到遇到结束符。",
    "リクエストは順番に処理されます。",
    "응답 시간은 대기열의 길이에 따라 달라집니다.",
    "The naïve façade of the résumé said “déjà vu” — nothing more…",
    "That works as expected! 🚀",
    "All checks have passed ✅ and the rollout is complete 🎉.",
    "Be careful here ⚠️: the second call overwrites the first.",
    "The family emoji 👩‍👩‍👧 is one character on the screen and many bytes on the wire.",
)

LISTS = (
    "\n- Reduce the maximum batch size.\n- Raise the memory share of the cache.\n- Give long prompts a pool.",
    "\n1. Collect the baseline.\n2. Apply the change to one replica.\n3. Compare after a day of traffic.",
    "\n## Summary\n\n**Latency** went down, *throughput* stayed the same.",
    "\n| metric | before | after |\n|---|---|---|\n| p50 | 120 ms | 80 ms |\n| p99 | 2.4 s | 0.9 s |",
)

CODE = (
    '\n```python\ndef total(prices: list[float]) -> float:\n    """Sum them up."""\n    return sum(prices)\n```\n',
    "\n```bash\ncurl -s http://localhost:8000/v1/models | jq '.data[].id'\n```\n",
    '\n```json\n{"name": "demo", "path": "C:\\\\data\\\\in.txt", "ok": true}\n```\n',
    '\n```go\nif err != nil {\n\tlog.Fatalf("read: %v\\n", err)\n}\n```\n',
    '\n```html\n<p class="note">Fish &amp; chips</p>\n```\n',
)

THOUGHTS = (
    "Okay, the user wants a concrete answer, so let me work through it.",
    "First I should check what is actually being asked.",
    "Hmm, there are two ways to read this question.",
    "Wait, that does not add up: 17 × 6 is 102, not 112.",
    "Let me reconsider the second assumption.",
    "So the simplest explanation is that the cache was cold.",
    "I should mention the trade-off, but keep it brief.",
    "That seems right. Now write the final answer.",
)
