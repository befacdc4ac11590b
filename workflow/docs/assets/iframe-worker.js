/* The search runs in a worker, and a page that is opened from a file may start none: there it runs in a hidden frame.
   The search looks for this name in its parent, to know where it is. */
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      this.started = new Promise(resolve => {
        document.addEventListener("DOMContentLoaded", resolve)
        if (document.readyState !== "loading") resolve()
      }).then(() => new Promise(resolve => {
        document.body.append(frame)
        const inner = frame.contentWindow
        inner.document.open()
        inner.document.write("<!doctype html><title>search</title>")
        inner.document.close()
        inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
        const script = inner.document.createElement("script")
        script.src = new URL(url, location.href).href
        script.onload = () => resolve(inner)
        inner.document.body.append(script)
      }))
    }

    postMessage(data) {
      this.started.then(inner => inner.dispatchEvent(new inner.MessageEvent("message", { data })))
    }

    terminate() {}
  }
  window.Worker = window.IFrameWorker
}
