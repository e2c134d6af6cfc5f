//! Work that waits for a consumer, and consumers that wait for work. It knows nothing of what either of them is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// So many idle consumers take turns. Of more than that, those that have been idle longest are left alone: the memory of
/// their instances has left the processor's cache, or was never touched. With a thousand consumers of a quick plugin that
/// spares an eighth of the host's CPU time for a message, and a third of its memory; any number from 8 to 128 does as well.
const IN_TURN: usize = 64;

/// Work, to be taken by whoever is idle. Clones are the same queue.
#[derive(Debug)]
pub struct Queue<T>(Arc<Mutex<Waiting<T>>>);

/// Those who were woken and have not come yet are not among the idle.
#[derive(Debug)]
struct Waiting<T> {
    /// Bounded by whoever adds to it.
    work: VecDeque<T>,
    /// Those that became idle last are at the end. Some may have ceased to wait.
    idle: VecDeque<oneshot::Sender<()>>,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue(Arc::new(Mutex::new(Waiting { work: VecDeque::new(), idle: VecDeque::new(), closed: false })))
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue(Arc::clone(&self.0))
    }
}

impl<T> Queue<T> {
    /// Adds work and wakes an idle consumer. Whoever is free first takes it. A closed queue drops it.
    pub fn add(&self, work: T) {
        {
            let mut waiting = self.lock();
            if waiting.closed {
                return;
            }
            waiting.work.push_back(work);
        }
        self.wake();
    }

    /// Wakes a consumer, if there is work and anybody is idle.
    fn wake(&self) {
        while let Some(consumer) = self.next_idle() {
            if consumer.send(()).is_ok() {
                return;
            }
        }
    }

    /// Who is woken next: who has been idle longest, of those that take turns.
    fn next_idle(&self) -> Option<oneshot::Sender<()>> {
        let mut waiting = self.lock();
        if waiting.work.is_empty() {
            return None;
        }
        let next = waiting.idle.len().saturating_sub(IN_TURN);
        waiting.idle.remove(next)
    }

    /// Work that waits already.
    #[must_use]
    pub fn waiting(&self) -> Option<T> {
        self.lock().work.pop_front()
    }

    /// The next work; `None` when the queue is closed. May be dropped at any moment.
    pub async fn next(&self) -> Option<T> {
        loop {
            let mut place = {
                let mut waiting = self.lock();
                if let Some(work) = waiting.work.pop_front() {
                    return Some(work);
                }
                if waiting.closed {
                    return None;
                }
                let (sender, woken) = oneshot::channel();
                waiting.add_idle(sender);
                Place { queue: self, woken }
            };
            // An error says that the queue is closed. Otherwise somebody may have been quicker.
            let _ = (&mut place.woken).await;
        }
    }

    /// Ends it, for everybody, and returns the work that nobody has taken.
    #[must_use]
    pub fn close(&self) -> Vec<T> {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.idle.clear();
        waiting.work.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    fn add_idle(&mut self, consumer: oneshot::Sender<()>) {
        // Those that have ceased to wait are forgotten before more room is taken, so there are never many of them.
        if self.idle.len() == self.idle.capacity() {
            self.idle.retain(|consumer| !consumer.is_closed());
        }
        self.idle.push_back(consumer);
    }
}

/// The place of a consumer that waits.
struct Place<'a, T> {
    queue: &'a Queue<T>,
    woken: oneshot::Receiver<()>,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.woken.close();
        // It was woken in the moment in which it ceased to wait.
        if self.woken.try_recv().is_ok() {
            self.queue.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Next<'a> = Pin<Box<dyn Future<Output = Option<u32>> + 'a>>;

    /// So many consumers, which became idle one after the other.
    fn idle(queue: &Queue<u32>, consumers: usize) -> Vec<Next<'_>> {
        let mut idle: Vec<Next<'_>> = (0..consumers).map(|_| -> Next<'_> { Box::pin(queue.next()) }).collect();
        idle.iter_mut().for_each(|next| assert!(poll(next.as_mut()).is_pending()));
        idle
    }

    fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Who gets the work.
    fn taker(queue: &Queue<u32>, idle: &mut [Next<'_>]) -> usize {
        queue.add(1);
        idle.iter_mut().position(|next| poll(next.as_mut()) == Poll::Ready(Some(1))).expect("somebody takes it")
    }

    #[test]
    fn consumers_take_turns_and_of_many_the_idlest_are_left_alone() {
        let queue = Queue::default();
        assert_eq!(taker(&queue, &mut idle(&queue, IN_TURN)), 0);
        assert_eq!(taker(&queue, &mut idle(&queue, IN_TURN + 10)), 10);
    }

    #[test]
    fn work_that_nobody_can_take_waits_in_order() {
        let queue = Queue::default();
        [1, 2, 3].into_iter().for_each(|work| queue.add(work));
        assert_eq!(queue.waiting(), Some(1));
        assert_eq!(poll(pin!(queue.next())), Poll::Ready(Some(2)));
        assert_eq!(queue.waiting(), Some(3));
        assert_eq!(queue.waiting(), None);
    }

    #[test]
    fn work_of_a_consumer_that_ceased_to_wait_is_anothers() {
        let queue = Queue::default();
        let mut consumers = idle(&queue, 3);
        drop(consumers.remove(0)); // before it was given anything
        queue.add(1);
        drop(consumers.remove(0)); // and after it
        assert_eq!(poll(consumers[0].as_mut()), Poll::Ready(Some(1)));

        drop(idle(&queue, 2));
        queue.add(2);
        assert_eq!(queue.waiting(), Some(2));
    }

    #[test]
    fn those_that_ceased_to_wait_are_forgotten() {
        let queue = Queue::default();
        (0..1_000).for_each(|_| drop(idle(&queue, 10)));
        assert!(queue.lock().idle.len() < 100);
    }

    #[test]
    fn a_closed_queue_ends_for_everybody_and_returns_what_waits() {
        let queue = Queue::default();
        [1, 2].into_iter().for_each(|work| queue.add(work));
        assert_eq!(queue.close(), [1, 2]);
        queue.add(3);
        assert_eq!(queue.waiting(), None);
        assert_eq!(poll(pin!(queue.next())), Poll::Ready(None));

        let queue = Queue::default();
        let mut consumers = idle(&queue, 1);
        assert!(queue.close().is_empty());
        assert_eq!(poll(consumers[0].as_mut()), Poll::Ready(None));
    }
}
